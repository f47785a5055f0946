// Complete: one page of text that the model goes on with, token by token, in as many branches as one likes.

import { ApiError, countTokens, post } from "./api.js";
import { Alternatives, lineOf } from "./alternatives.js";
import { READINGS, measure } from "./colour.js";
import { eachFrame, h, icon, iconButton, setWords } from "./dom.js";
import { Draft } from "./draft.js";
import { Editor } from "./editor.js";
import * as growth from "./growth.js";
import { recall, remember } from "./memory.js";
import { Outline, Variants } from "./outline.js";
import { completionRequest, scoringRequest } from "./request.js";
import { Gauge, Problem, legend } from "./signs.js";
import { TokenReader, fromCompletion } from "./tokens.js";
import { Work, PATHS, last } from "./work.js";
import { languageNow, say } from "./words.js";

const COUNT_AFTER = 700; // milliseconds without a change, then the text's tokens are counted
const EXAMPLES = { en: ["Once upon a time", "The three laws of a good kitchen are", "Dear future owner of this house,"], zh: ["话说天下大势，", "从前有一座山，", "写给十年后的自己："] };

export class Complete {
  name = "complete";
  #countable = true;
  #counting = 0;

  constructor(page) {
    this.page = page;
    this.draft = new Draft();
    this.work = null;
    this.sheet = page.alternatives;
    this.editor = new Editor({
      edited: (text, kind) => this.#edited(text, kind),
      reached: (span) => this.#reached(span),
      hovered: (span, element) => this.#offer(span, element, false),
      left: () => this.sheet.leave(),
      tapped: (span, element) => this.#offer(span, element, true),
      undo: () => this.undo(),
      redo: () => this.redo(),
    });
    this.outline = new Outline({ go: (id) => this.#go(id), prune: (id) => this.#prune(id) });
    this.variants = new Variants((id) => this.#go(id));
    this.problem = new Problem(() => this.#retry());
    this.gauge = new Gauge();
    this.#build();
    this.read(recall("reading", "probability"));
    this.paint = eachFrame(() => this.#paint());
    this.render();
  }

  #build() {
    this.runButton = h("button", { type: "button", class: "primary", tTitle: "keys_run", on: { click: () => (this.work ? this.stop() : this.run()) } });
    this.undoButton = iconButton("undo", "undo", () => this.undo());
    this.redoButton = iconButton("redo", "redo", () => this.redo());
    this.newButton = iconButton("new", "new_text", () => this.clear());
    this.againButton = h("button", { type: "button", class: "quiet", tTitle: "keys_again", on: { click: () => this.again() } }, icon("again"), h("span", { t: "again" }));
    this.scoreButton = h("button", { type: "button", class: "quiet", tTitle: "score_about", on: { click: () => this.score() } }, icon("drop"), h("span", { t: "score" }));
    this.readings = h("div", { class: "segments", role: "group", tLabel: "colour_by" }, ...READINGS.map((reading) =>
      h("button", { type: "button", "data-reading": reading, t: "reading_" + reading, on: { click: () => this.read(reading) } })));
    this.legend = h("div", { class: "legend" });
    this.line = h("p", { id: "token-line", class: "token-line", "aria-live": "polite" });
    this.status = h("p", { class: "status-line", role: "status" });
    this.examples = h("div", { class: "examples" });
    this.element = h("div", { class: "complete" },
      h("aside", { class: "branches", tLabel: "branches" }, h("h2", { t: "branches" }), this.outline.element),
      h("div", { class: "desk" },
        h("div", { class: "reading-bar" }, this.readings, this.legend, h("span", { class: "space" }), this.scoreButton),
        h("div", { class: "sheet" }, this.editor.element, this.examples),
        this.problem.element,
        h("div", { class: "bar actions" }, this.runButton, this.againButton, h("span", { class: "pair" }, this.undoButton, this.redoButton, this.newButton), h("span", { class: "space" }), this.line),
        h("div", { class: "bar facts" }, this.status, this.gauge.element),
        this.variants.element));
    this.editor.field.addEventListener("keydown", (event) => this.#key(event));
  }

  // ---- what can be done

  /** The request that a run would send now. */
  request() {
    return { path: PATHS.completion, body: completionRequest(this.page.model?.id ?? "", this.draft.text, this.page.settings.values) };
  }

  async run(from = this.draft.at, settings = this.page.settings.values) {
    if (this.work || !this.page.ready()) return;
    const count = settings.temperature > 0 ? settings.n : 1;
    const text = growth.textOf(this.draft.tree, from);
    await this.#grow(text, settings, () => this.draft.sprout(from, count), from);
  }

  /** Write the latest piece once more, beside the one that is there. */
  again() {
    if (this.work) return;
    const node = this.draft.tree.nodes[this.draft.at];
    const settings = this.page.settings.values;
    if (node.by !== "model") this.run();
    else this.run(node.parent, settings.seed === null ? settings : { ...settings, seed: settings.seed + this.draft.tree.nodes[node.parent].children.length });
  }

  async #grow(prompt, settings, sprout, from) {
    const body = completionRequest(this.page.model.id, prompt, settings);
    this.problem.hide();
    this.#retry = () => this.run();
    const ids = sprout();
    const work = (this.work = new Work());
    this.#working(true);
    try {
      await work.run("completion", body, (index, parts, end) => {
        this.draft.write(ids[index], parts, end);
        this.paint();
      });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.problem.show(error);
      this.page.refused(error);
    } finally {
      const ends = ids.map((id) => this.draft.tree.nodes[id]?.end);
      this.draft.tidy(ids, from);
      this.#finished = { work, end: work.stopped ? "stopped" : ends[0] };
      this.work = null;
      this.#working(false);
      if (work.usage) this.#count(work.usage.total_tokens);
      this.render();
    }
  }

  #finished = null;
  #retry = () => this.run();

  stop() {
    this.work?.stop();
  }

  undo() {
    this.stop();
    this.draft.undo();
    this.render(this.draft.text.length);
  }

  redo() {
    this.draft.redo();
    this.render(this.draft.text.length);
  }

  beside(step) {
    const id = growth.beside(this.draft.tree, this.draft.at, step);
    if (id !== this.draft.at) this.#go(id);
  }

  clear() {
    this.stop();
    this.draft.step();
    this.draft.go(growth.ROOT);
    this.render(0);
    this.editor.field.focus();
  }

  /** Ask how likely the model finds what is on the page, and colour it. */
  async score() {
    const { text } = this.draft;
    if (!text.trim() || this.work || !this.page.ready()) return;
    this.problem.hide();
    this.#retry = () => this.score();
    const body = scoringRequest(this.page.model.id, text);
    try {
      const answer = await post(PATHS.completion, body);
      Object.assign(last, { path: PATHS.completion, body, answer });
      const reader = new TokenReader();
      const choice = answer.choices[0];
      this.draft.score(text, [...reader.push(choice.text, fromCompletion(choice.logprobs)), ...reader.end()]);
      if (this.reading === "off") this.read("surprise");
      this.render();
      this.#tell(measure(this.draft.scores.places.map((place) => place.part)));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.problem.show(error);
      this.page.refused(error);
    }
  }

  #tell(found) {
    if (!found) return;
    const values = { tokens: found.tokens, bits: found.bitsByte.toFixed(2), perplexity: found.perplexity.toPrecision(3) };
    setWords(this.status, "t", ["score_found", values]);
  }

  read(reading) {
    this.reading = READINGS.includes(reading) ? reading : "probability";
    remember("reading", this.reading);
    for (const name of READINGS) this.element.classList.toggle("by-" + name, name === this.reading);
    for (const button of this.readings.children) button.setAttribute("aria-pressed", String(button.dataset.reading === this.reading));
    this.legend.replaceChildren(...legend(this.reading));
  }

  state() {
    return { text: this.draft.text };
  }

  resume(kept) {
    this.draft.resume(kept);
    this.render(this.draft.text.length);
    this.#countSoon();
  }

  restore({ text }) {
    if (typeof text === "string" && text) this.#edited(text.slice(0, 100_000), "shared", true);
  }

  // ---- what the page tells

  #edited(text, kind, show = false) {
    this.draft.edit(text, kind, performance.now());
    this.sheet.hide();
    this.#finished = null;
    if (show) this.render(text.length);
    else this.#shown();
    this.#countSoon();
  }

  #go(id) {
    if (this.work) return;
    this.draft.go(id);
    this.render(this.draft.text.length);
    this.#countSoon();
  }

  #prune(id) {
    if (this.work) return;
    this.draft.prune(id);
    this.render(this.draft.text.length);
  }

  #reached(span) {
    this.line.textContent = span ? lineOf(span) : "";
  }

  #offer(span, element, focus) {
    if (this.work && focus) return;
    const choose = this.work ? null : (token) => this.#choose(span, token);
    this.sheet.show(span, element, { choose, focus, back: this.editor.field });
    if (focus) this.editor.ink.mark(span);
  }

  #choose(span, { token, logprob, special }) {
    this.editor.field.focus({ preventScroll: true });
    if (token === span.text) return;
    if (special) {
      this.draft.cut(span.start);
      this.render(this.draft.text.length);
      return;
    }
    const prompt = this.draft.text.slice(0, span.start) + token;
    const settings = { ...this.page.settings.values, n: 1 };
    const part = { text: token, logprob, top: span.top, pieces: [{ token, logprob, top: span.top }] };
    this.#grow(prompt, settings, () => [this.draft.branch(span.start, part)], this.draft.at);
  }

  #key(event) {
    const command = event.ctrlKey || event.metaKey;
    if (event.altKey && event.key === "ArrowDown") {
      const span = this.editor.tokenAtCaret();
      event.preventDefault();
      if (span) this.#offer(span, this.editor.ink.elementOf(span), true);
    } else if (command && event.key.toLowerCase() === "z") {
      event.preventDefault();
      if (event.shiftKey) this.redo();
      else this.undo();
    } else if (command && event.key.toLowerCase() === "y") {
      event.preventDefault();
      this.redo();
    }
  }

  // ---- what is shown

  render(caret = null) {
    this.#caret = caret;
    this.#shown();
    this.#facts();
  }

  #caret = null;

  #shown() {
    this.editor.show(this.draft.spans(), { caret: this.#caret });
    this.#caret = null;
    this.outline.show(this.draft.tree, this.draft.at);
    this.variants.show(this.draft.tree, this.draft.at);
    this.undoButton.disabled = !this.draft.canUndo;
    this.redoButton.disabled = !this.draft.canRedo;
    this.newButton.disabled = this.draft.text === "";
    this.againButton.hidden = this.draft.tree.nodes[this.draft.at].by !== "model";
    this.#offerExamples();
  }

  #paint() {
    this.editor.show(this.draft.spans(), { caret: this.draft.text.length, fresh: Boolean(this.work) });
    this.outline.show(this.draft.tree, this.draft.at);
    this.variants.show(this.draft.tree, this.draft.at);
    this.#facts();
    if (this.work) this.editor.tail.scrollIntoView({ block: "nearest" });
  }

  #working(on) {
    this.editor.lock(on);
    this.runButton.classList.toggle("stop", on);
    this.runButton.replaceChildren(on ? icon("stop") : "", h("span", { t: on ? "stop" : "continue" }), h("kbd", {}, on ? "Esc" : this.page.runKeys));
    this.againButton.disabled = this.scoreButton.disabled = on;
    this.page.busy(on);
    if (on) this.#shown();
  }

  #facts() {
    const done = this.work ? { work: this.work, end: null } : this.#finished;
    if (!this.runButton.firstChild) this.#working(false);
    if (!done) return;
    const speed = done.work.speed;
    const facts = [say("tokens_written", { n: done.work.tokens })];
    if (speed) facts.push(say("tokens_a_second", { n: speed < 10 ? speed.toFixed(1) : Math.round(speed) }));
    if (done.end) facts.push(say("end_" + (["stop", "length", "stopped"].includes(done.end) ? done.end : "stop")));
    delete this.status.dataset.t;
    this.status.textContent = facts.join(" · ");
  }

  #offerExamples() {
    const empty = this.draft.text === "" && !this.work;
    this.examples.hidden = !empty;
    if (!empty) return;
    this.examples.replaceChildren(h("span", { t: "try" }), ...EXAMPLES[languageNow()].map((text) =>
      h("button", { type: "button", class: "example", on: { click: () => this.#begin(text) } }, text)));
  }

  #begin(text) {
    this.#edited(text, "example", true);
    this.editor.field.focus();
    this.run();
  }

  #countSoon() {
    clearTimeout(this.#counting);
    if (!this.#countable || !this.page.model) return;
    this.#counting = setTimeout(async () => {
      try {
        this.#count(await countTokens(this.page.model.id, this.draft.text));
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        this.#countable = false; // this server counts only with an answer
      }
    }, COUNT_AFTER);
  }

  #count(tokens) {
    this.gauge.show(tokens, this.page.model?.context);
  }

  focus() {
    this.editor.field.focus();
  }

  /** Words that are not in the document's own attributes, in the language of now. */
  sayAgain() {
    this.read(this.reading);
    this.render();
  }
}
