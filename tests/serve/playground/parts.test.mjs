// The playground's pure parts, run by `node --test` from test_parts.py, which says where they are.

import assert from "node:assert/strict";
import { test } from "node:test";

const at = (name) => import(`${process.env.PLAYGROUND}/${name}.js`);
const growth = await at("growth");
const { Draft } = await at("draft");
const { TokenReader, fromChat, fromCompletion, isSpecial } = await at("tokens");
const { EventReader } = await at("sse");
const { parse, inline } = await at("markdown");
const { strength, percent, measure, visible } = await at("colour");
const request = await at("request");
const { codeFor, pythonValue } = await at("code");
const turns = await at("turns");
const { packed, unpacked } = await at("share");
const words = await at("words");

const part = (text, logprob = -1) => ({ text, logprob, top: [], pieces: [{ token: text, logprob }] });

function grown() {
  let tree = growth.emptyTree(), you, model;
  [tree, you] = growth.addChild(tree, growth.ROOT, "you", [{ text: "One two" }]);
  [tree, model] = growth.addChild(tree, you, "model", [part(" three"), part(" four"), part(" five")]);
  return { tree, you, model };
}

test("a text is what stands on the way to its node", () => {
  const { tree, you, model } = grown();
  assert.equal(growth.textOf(tree, model), "One two three four five");
  assert.deepEqual(growth.partsOf(tree, model).map(({ start, end, by }) => [start, end, by]), [[0, 7, "you"], [7, 13, "model"], [13, 18, "model"], [18, 23, "model"]]);
  assert.equal(growth.textOf(tree, you), "One two");
});

test("another token makes a branch, and leaves the old text as it was", () => {
  const { tree, model } = grown();
  const [branched, id] = growth.branchAt(tree, model, 13, part(" seven"));
  assert.equal(growth.textOf(branched, id), "One two three seven");
  const others = branched.nodes[branched.nodes[id].parent].children.map((child) => growth.textOf(branched, child));
  assert.deepEqual(others, ["One two three four five", "One two three seven"]);
  assert.equal(growth.textOf(tree, model), "One two three four five", "the tree before is not touched");
  const [again, same] = growth.branchAt(branched, id, 13, part(" seven"));
  assert.deepEqual([again.next, same], [branched.next, id], "the same choice twice is the same branch");
});

test("what grew from a node stays with its second half when it is split", () => {
  const { tree, model } = grown();
  const [deeper, leaf] = growth.addChild(tree, model, "model", [part(" six")]);
  const [split, at] = growth.splitAt(deeper, leaf, 10);
  assert.equal(growth.textOf(split, at), "One two th");
  assert.equal(growth.textOf(split, leaf), "One two three four five six");
  assert.equal(growth.partsOf(split, leaf)[1].part.logprob, undefined, "half a token has no probability");
});

test("an edit inside the model's text is a branch; a draft of one's own is changed in place", () => {
  const { tree, model } = grown();
  const [edited, id] = growth.graft(tree, model, "One two three FOUR five");
  assert.equal(growth.textOf(edited, id), "One two three FOUR five");
  assert.equal(edited.nodes[id].by, "you");
  assert.ok(Object.keys(edited.nodes).some((node) => growth.textOf(edited, Number(node)) === "One two three four five"));
  const [shorter, draft] = growth.graft(edited, id, "One two thr");
  assert.equal(growth.textOf(shorter, draft), "One two thr");
  assert.ok(!Object.values(shorter.nodes).some((node) => growth.nodeText(node).includes("FOUR")), "the draft is gone");
});

test("any sequence of edits and branches gives the text that was asked for, and loses none of the model's", () => {
  let seed = 7;
  const random = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
  const letters = ["a", "b", "好", "😀", "\n", " c"];
  for (let round = 0; round < 60; round++) {
    let { tree, model: at } = grown();
    const written = [growth.textOf(tree, at)];
    for (let step = 0; step < 14; step++) {
      const text = growth.textOf(tree, at);
      const place = random(text.length + 1);
      if (random(3) === 0) [tree, at] = growth.branchAt(tree, at, place, part(letters[random(6)]));
      else {
        const next = text.slice(0, place) + letters[random(6)] + text.slice(Math.min(text.length, place + random(3)));
        [tree, at] = growth.graft(tree, at, next);
        assert.equal(growth.textOf(tree, at), next);
      }
      if (random(3) === 0) {
        [tree, at] = growth.addChild(tree, at, "model", [part(" x" + step)]);
        written.push(growth.textOf(tree, at));
      }
    }
    const kept = Object.keys(tree.nodes).map((id) => growth.textOf(tree, Number(id)));
    for (const text of written) assert.ok(kept.some((one) => one.startsWith(text)), JSON.stringify(text));
  }
});

test("the outline is indented only where the text branches", () => {
  const { tree, model } = grown();
  const [branched, id] = growth.branchAt(tree, model, 13, part(" seven"));
  assert.deepEqual(growth.outline(branched, id).map(({ depth, text, here }) => [depth, text, here]), [
    [0, "One two", true], [0, " three", true], [1, " four five", false], [1, " seven", true],
  ]);
  assert.equal(growth.textOf(branched, growth.beside(branched, id, 1)), "One two three four five");
});

test("a draft undoes typing by pauses, and every step of the model's", () => {
  const draft = new Draft();
  draft.edit("a", "insertText", 0);
  draft.edit("ab", "insertText", 100);
  draft.edit("ab c", "insertText", 5000);
  const [id] = draft.sprout(draft.at, 1);
  draft.write(id, [part(" d")], "length");
  assert.equal(draft.text, "ab c d");
  draft.undo();
  assert.equal(draft.text, "ab c");
  draft.undo();
  assert.equal(draft.text, "ab");
  draft.redo();
  draft.redo();
  assert.equal(draft.text, "ab c d");
  for (let step = 0; step < 3; step++) draft.undo();
  assert.equal(draft.text, "");
  assert.equal(draft.canUndo, false);
});

test("an answer without a word is no step", () => {
  const draft = new Draft();
  draft.edit("a", "insertText", 0);
  const from = draft.at;
  draft.tidy(draft.sprout(from, 2), from);
  assert.deepEqual([draft.text, draft.at, draft.canUndo], ["a", from, true]);
  draft.undo();
  assert.deepEqual([draft.text, draft.canUndo], ["", false]);
});

test("own words are painted as they were scored, as far as the text is still the same", () => {
  const draft = new Draft();
  draft.edit("one two six", "insertText", 0);
  draft.score("one two six", [{ text: "one", logprob: null }, part(" two", -2), part(" six", -3)]);
  assert.deepEqual(draft.spans().map(({ text, logprob, by }) => [text, logprob, by]), [["one", null, "you"], [" two", -2, "you"], [" six", -3, "you"]]);
  draft.edit("one two sex", "insertText", 2000);
  assert.deepEqual(draft.spans().map(({ text, logprob }) => [text, logprob]), [["one", null], [" two", -2], [" sex", undefined]]);
});

test("tokens that are parts of a character are one part together", () => {
  const reader = new TokenReader();
  const first = { token: "bytes:\\xe9", logprob: -1, top: [] }, second = { token: "bytes:\\xa5\\xae", logprob: -2, top: [] };
  assert.deepEqual(reader.push("", [first]), []);
  const [found] = reader.push("饮", [second]);
  assert.deepEqual([found.text, found.logprob, found.pieces.length], ["饮", -3, 2]);
  assert.deepEqual(reader.end(), []);
});

test("text without its tokens is never lost, and tokens without text add none", () => {
  const reader = new TokenReader();
  assert.deepEqual(reader.push("plain", []), [{ text: "plain" }]);
  assert.deepEqual(reader.push("", [part("held").pieces[0]]), []);
  assert.deepEqual(reader.push("he", []).concat(reader.end()), [{ text: "he" }]);
  const start = { token: "<|im_start|>", logprob: null, top: [] };
  assert.deepEqual(reader.push("One", [start, part("One").pieces[0]]).map(({ text, logprob }) => [text, logprob]), [["One", -1]], "a sign of the start is no text");
  assert.deepEqual(reader.push("other", [{ token: "x", logprob: -1, top: [] }]), [{ text: "other" }]);
});

test("both shapes of log-probabilities are read, the likeliest first", () => {
  const legacy = fromCompletion({ tokens: ["a"], token_logprobs: [-0.5], top_logprobs: [{ b: -2, a: -0.5 }] });
  const chat = fromChat({ content: [{ token: "a", logprob: -0.5, bytes: [97], top_logprobs: [{ token: "b", logprob: -2, bytes: [98] }, { token: "a", logprob: -0.5, bytes: [97] }] }] });
  assert.deepEqual(legacy, chat);
  assert.deepEqual(legacy[0].top.map(({ token }) => token), ["a", "b"]);
  assert.equal(fromChat({ content: [{ token: "\\xe9", logprob: -1, bytes: [0xe9], top_logprobs: [] }] })[0].token, "bytes:\\xe9");
  assert.ok(isSpecial("<|im_end|>") && isSpecial("</s>") && !isSpecial("<b>") && !isSpecial(" end"));
});

test("events are read however they are cut", () => {
  const stream = 'data: {"a": 1}\n\n: a comment\r\ndata: two\ndata: lines\n\nevent: x\n\ndata: [DONE]\n\n';
  for (let cut = 0; cut <= stream.length; cut++) {
    const reader = new EventReader();
    assert.deepEqual([...reader.push(stream.slice(0, cut)), ...reader.push(stream.slice(cut))], ['{"a": 1}', "two\nlines", "[DONE]"]);
  }
});

test("markdown is read as values, and HTML as text", () => {
  const kinds = parse("# T\n\ntext **bold** <b>x</b>\n- a\n- b\n  1. c\n\n```py\nx < 1\n```\n> q\n\n|a|b|\n|-|-|\n|1|2|\n\n---").map(({ kind }) => kind);
  assert.deepEqual(kinds, ["h", "p", "list", "code", "quote", "table", "rule"]);
  assert.deepEqual(inline("**a** <b>"), [{ kind: "strong", content: ["a"] }, " <b>"]);
  assert.deepEqual(inline("snake_case_name and 2 * 3 * 4"), ["snake_case_name and 2 * 3 * 4"]);
  assert.deepEqual(inline("[x](javascript:alert(1))").map((one) => one.kind ?? one), ["[x](javascript:alert(1))"]);
  assert.deepEqual(inline("[x](https://e.org)")[0], { kind: "link", address: "https://e.org", content: ["x"] });
  assert.deepEqual(inline("`a ** b`"), [{ kind: "code", text: "a ** b" }]);
  assert.deepEqual(parse("```\nopen").map(({ kind, text }) => [kind, text]), [["code", "open"]]);
  assert.equal(parse("3. c\n4. d")[0].start, 3);
});

test("markdown ends on any text", () => {
  const pieces = ["*", "_", "`", "[", "](", "~~", ">", "- ", "1. ", "\n", "  ", "|", "---", "#", "```", "a", "字", "\\"];
  let seed = 3;
  const random = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
  for (let round = 0; round < 300; round++) parse(Array.from({ length: 80 }, () => pieces[random(pieces.length)]).join(""));
  parse("> ".repeat(3000) + "x");
  parse("*a ".repeat(2000));
});

test("colours grow with probability and with surprise, and no token is without its number", () => {
  assert.equal(strength(Math.log(0.25), "probability"), 0.25);
  assert.equal(strength(-6 * Math.LN2, "surprise"), 0.5);
  assert.equal(strength(-1000, "surprise"), 1);
  assert.equal(strength(null, "surprise"), null);
  assert.deepEqual([1, 0.824, 0.0312, 0.0004, 1e-9].map(percent), ["100%", "82%", "3.1%", "0.04%", "<0.01%"]);
  const found = measure([part("ab", -2 * Math.LN2), part("好", -4 * Math.LN2), { text: "unscored" }]);
  assert.deepEqual([found.tokens, found.bitsToken, found.bitsByte.toFixed(2)], [2, 3, "1.20"]);
  assert.deepEqual(["bytes:\\x20\\xe5", "bytes:\\xbf", "bytes:\\xf0\\x9f"].map(visible), ["␣倀…忿", "⟨bf⟩", "⟨f0 9f⟩"]);
  assert.deepEqual([" the", "\n", "bytes:\\xe9\\xa5"].map(visible), ["␣the", "⏎", "饀…饿"]);
});

test("requests hold what was set, and leave out what changes nothing", () => {
  const first = request.firstSettings();
  assert.deepEqual(Object.keys(request.completionRequest("m", "p", { ...first, top_p: 1 })), ["model", "prompt", "max_tokens", "temperature", "logprobs", "stream", "stream_options"]);
  const chat = request.chatRequest("m", [], { ...first, n: 3, seed: 0, stop: ["\n"], format: "json_schema", min_p: 0.1 });
  assert.deepEqual([chat.n, chat.seed, chat.stop, chat.min_p, chat.response_format.type], [3, 0, ["\n"], 0.1, "json_schema"]);
  assert.equal(request.completionRequest("m", "p", { ...first, n: 3, temperature: 0 }).n, undefined, "greedy variants are all the same");
  assert.throws(() => request.chatRequest("m", [], { ...first, format: "json_schema", schema: "{" }), SyntaxError);
});

test("settings from outside are checked", () => {
  const read = request.readSettings({ temperature: 99, top_p: 0.5, n: 1.5, seed: null, stop: ["a", 1, "", "b"], format: "xml", evil: 1 });
  assert.deepEqual([read.temperature, read.top_p, read.n, read.stop, read.format, read.evil], [0.8, 0.5, 1, ["a", "b"], "text", undefined]);
  assert.deepEqual(request.readSettings("x"), request.firstSettings());
  assert.equal(request.presetOf(request.firstSettings()), "balanced");
});

test("code is quoted right in each language", () => {
  const body = { ...request.completionRequest("m", "it's \"so\"\n\\ 好", { ...request.firstSettings(), min_p: 0.1 }), stream: false };
  assert.ok(codeFor("curl", "http://h", "/v1/completions", body, true).includes("it'\\''s"));
  assert.ok(codeFor("curl", "http://h", "/v1/completions", body, true).includes("$BIMO_API_KEY"));
  assert.ok(codeFor("python", "http://h", "/v1/completions", body, false).includes('extra_body={"min_p": 0.1}'));
  assert.ok(!codeFor("node", "http://h", "/v1/completions", body, false).includes("logprobs"));
  assert.equal(pythonValue({ a: [true, null, 1.5] }), '{"a": [True, None, 1.5]}');
});

test("a talk keeps every edit and every answer", () => {
  let talk = turns.emptyTalk("Be brief."), asked, one, other, edited;
  [talk, asked] = turns.addTurn(talk, turns.TOP, "user", "Hi");
  [talk, one] = turns.addTurn(talk, asked, "assistant", "Hello");
  [talk, other] = turns.addTurn(talk, asked, "assistant", "Hey");
  assert.deepEqual(turns.placeOf(talk, other), [1, 2]);
  assert.deepEqual(turns.shown(turns.chooseBeside(talk, other, -1)).map(({ text }) => text), ["Hi", "Hello"]);
  assert.deepEqual(turns.messagesTo(talk, asked), [{ role: "system", content: "Be brief." }, { role: "user", content: "Hi" }]);
  [talk, edited] = turns.addTurn(talk, turns.TOP, "user", "Hi!");
  assert.deepEqual(turns.shown(talk).map(({ text }) => text), ["Hi!"]);
  const removed = turns.removeTurn(talk, edited);
  assert.deepEqual(turns.shown(removed).map(({ text }) => text), ["Hi", "Hey"]);
  assert.ok(talk.turns[one]);
});

test("a talk survives its file, and a wrong file is refused", () => {
  let talk = turns.emptyTalk("S"), asked, answer;
  [talk, asked] = turns.addTurn(talk, turns.TOP, "user", "好");
  [talk, answer] = turns.addTurn(talk, asked, "assistant", "A");
  [talk] = turns.addTurn(talk, asked, "assistant", "B");
  talk = turns.choose(talk, answer);
  const back = turns.imported(JSON.parse(JSON.stringify(turns.exported(talk))));
  assert.deepEqual(turns.exported(back), turns.exported(talk));
  const messages = [{ role: "system", content: "S" }, { role: "user", content: "Q" }];
  assert.deepEqual(turns.messagesTo(turns.imported(messages), 1), messages);
  const cycle = { format: turns.FORMAT, turns: [{ id: 1, parent: 2, role: "user", text: "" }, { id: 2, parent: 1, role: "user", text: "" }] };
  for (const wrong of [null, {}, 5, [{ role: "tool", content: "x" }], [{ role: "user" }], cycle, { format: turns.FORMAT, turns: [{ id: "__proto__", parent: 0, role: "user", text: "" }] }]) {
    assert.throws(() => turns.imported(wrong), TypeError);
  }
});

test("a state survives the address, and nonsense there is no state", async () => {
  const state = { view: "complete", text: "一二三 😀".repeat(50), settings: request.firstSettings() };
  const fragment = await packed(state);
  assert.match(fragment, /^s=[\w-]+$/);
  assert.deepEqual(await unpacked("#" + fragment), state);
  for (const wrong of ["", "#", "#s=", "#s=AAAA", "#s=!!", "#" + fragment.slice(0, 20)]) assert.equal(await unpacked(wrong), null);
});

test("the page speaks the browser's language where it can", () => {
  assert.equal(words.preferred(["fr-FR", "zh-TW", "en"]), "zh");
  assert.equal(words.preferred(["de"]), "en");
  words.setLanguage("zh");
  assert.equal(words.say("tokens_written", { n: 3 }), "3 个词元");
  assert.throws(() => words.say("no such key"), RangeError);
});
