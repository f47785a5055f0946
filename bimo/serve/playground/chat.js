// Chat: turns with a model that has a chat template; every edit and every answer stays, as a branch.

import { ApiError } from "./api.js";
import { announce, eachFrame, h, icon, iconButton } from "./dom.js";
import { chatRequest } from "./request.js";
import { Gauge, Problem } from "./signs.js";
import * as turns from "./turns.js";
import { TurnView } from "./turn_view.js";
import { Work, PATHS } from "./work.js";
import { languageNow, say } from "./words.js";

const MOST_FILE = 5_000_000; // bytes of a conversation to import
const STARTS = {
  en: ["Explain what a language model does, to a child of ten.", "Give me three names for a small bookshop.", "Write a haiku about ink."],
  zh: ["用小学生听得懂的话解释什么是语言模型。", "给一家小书店起三个名字。", "写一首关于墨的短诗。"],
};

export class Chat {
  name = "chat";
  #views = new Map();
  #writing = new Set();

  constructor(page) {
    this.page = page;
    this.talk = turns.emptyTalk();
    this.work = null;
    this.problem = new Problem(() => this.#answerLast());
    this.gauge = new Gauge();
    this.#build();
    this.paint = eachFrame(() => this.render());
    this.render();
  }

  #build() {
    this.system = h("textarea", { id: "system", class: "text", rows: 2, tPlaceholder: "system_hint", on: { input: () => (this.talk = { ...this.talk, system: this.system.value }) } });
    this.list = h("div", { class: "turns", role: "log", tLabel: "conversation" });
    this.field = h("textarea", { class: "text", rows: 1, tLabel: "message", tPlaceholder: "message_hint" });
    this.sendButton = h("button", { type: "button", class: "primary", on: { click: () => (this.work ? this.stop() : this.run()) } });
    this.starts = h("div", { class: "starts" });
    this.untaught = h("div", { class: "untaught", hidden: true }, h("p", { t: "no_template" }),
      h("button", { type: "button", class: "quiet", t: "go_complete", on: { click: () => this.page.go("complete") } }));
    const file = h("input", { type: "file", accept: "application/json,.json", hidden: true, on: { change: () => this.#import(file) } });
    const tools = h("div", { class: "tools" },
      iconButton("new", "new_chat", () => this.clear()), iconButton("save", "export", () => this.#export()), iconButton("open", "import", () => file.click()), file);
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !event.ctrlKey && !event.metaKey && event.keyCode !== 229) {
        event.preventDefault();
        if (!this.work) this.run();
      }
    });
    this.element = h("div", { class: "chat" },
      h("div", { class: "chat-head" }, h("details", { class: "system" }, h("summary", { t: "system" }), h("label", { for: "system", class: "hidden", t: "system" }), this.system), tools),
      this.untaught, this.starts, this.list, this.problem.element,
      h("div", { class: "composer" }, h("div", { class: "grow", "data-text": "" }, this.field), this.sendButton),
      h("div", { class: "bar under" }, h("span", { class: "about", t: "composer_hint" }), this.gauge.element));
    this.field.addEventListener("input", () => (this.field.parentElement.dataset.text = this.field.value));
  }

  request() {
    const ids = turns.shown(this.talk);
    const draft = this.field.value.trim();
    const at = ids.length ? ids[ids.length - 1].id : turns.TOP;
    const messages = turns.messagesTo(this.talk, at);
    if (draft) messages.push({ role: "user", content: draft });
    else if (messages.length && messages[messages.length - 1].role === "assistant") messages.pop();
    return { path: PATHS.chat, body: chatRequest(this.page.model?.id ?? "", messages, this.page.settings.values) };
  }

  run() {
    const text = this.field.value.trim();
    if (this.work || !this.page.ready()) return;
    if (!text) return this.#answerLast();
    const now = turns.shown(this.talk);
    let id;
    [this.talk, id] = turns.addTurn(this.talk, now.length ? now[now.length - 1].id : turns.TOP, "user", text);
    this.field.value = "";
    this.field.parentElement.dataset.text = "";
    this.#answer(id);
  }

  #answerLast() {
    const now = turns.shown(this.talk);
    const end = now[now.length - 1];
    if (end && end.role === "user") this.#answer(end.id);
  }

  /** Ask for an answer to the turn ``id``: as many as the settings say, beside those that are there. */
  async #answer(id) {
    if (this.work || !this.page.ready()) return;
    const settings = this.page.settings.values;
    const before = this.talk.turns[id].children.length;
    const seed = settings.seed === null ? null : settings.seed + before; // else every answer would be the same one
    let body;
    try {
      body = chatRequest(this.page.model.id, turns.messagesTo(this.talk, id), { ...settings, seed });
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      return this.problem.show(say("schema_wrong", { why: error.message }));
    }
    this.problem.hide();
    const answers = Array.from({ length: body.n ?? 1 }, () => {
      let answer;
      [this.talk, answer] = turns.addTurn(this.talk, id, "assistant", "");
      return answer;
    });
    this.talk = turns.choose(this.talk, answers[0]);
    const work = (this.work = new Work());
    answers.forEach((answer) => this.#writing.add(answer));
    this.#working(true);
    this.#toEnd(true);
    try {
      await work.run("chat", body, (index, parts, end) => this.#write(answers[index], parts, end, work));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.problem.show(error.code === "unsupported_model" ? say("no_template") : error);
      this.page.refused(error);
    } finally {
      this.#finish(answers, work);
    }
  }

  #write(id, parts, end, work) {
    const turn = this.talk.turns[id];
    if (!turn) return; // removed while it was written
    const all = [...(turn.parts || []), ...parts];
    this.talk = turns.changeTurn(this.talk, id, { parts: all, text: all.map((part) => part.text).join(""), meta: { tokens: all.length, speed: work.speed, end } });
    this.paint();
  }

  #finish(answers, work) {
    for (const id of answers) {
      this.#writing.delete(id);
      if (this.talk.turns[id] && !this.talk.turns[id].text) this.talk = turns.removeTurn(this.talk, id);
    }
    this.work = null;
    if (work.usage) this.gauge.show(work.usage.total_tokens, this.page.model?.context);
    this.#working(false);
    this.render();
  }

  stop() {
    this.work?.stop();
  }

  clear() {
    this.stop();
    this.talk = turns.emptyTalk(this.talk.system);
    this.gauge.element.hidden = true;
    this.problem.hide();
    this.render();
    this.field.focus();
  }

  #edit(id, text) {
    const { parent, role } = this.talk.turns[id];
    let edited;
    [this.talk, edited] = turns.addTurn(this.talk, parent, role, text);
    if (role === "user" && !this.work) this.#answer(edited);
    else this.render();
  }

  #export() {
    const blob = new Blob([JSON.stringify(turns.exported(this.talk), null, 2)], { type: "application/json" });
    const address = URL.createObjectURL(blob);
    const link = h("a", { href: address, download: "conversation.json" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }

  async #import(file) {
    const [chosen] = file.files;
    file.value = "";
    if (!chosen) return;
    try {
      if (chosen.size > MOST_FILE) throw new TypeError("too large");
      this.restore({ talk: JSON.parse(await chosen.text()) });
      announce("imported");
    } catch (error) {
      if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error;
      this.problem.show(say("not_imported", { why: error.message }));
    }
  }

  state() {
    return { talk: turns.exported(this.talk) };
  }

  /** Throws a TypeError when the talk cannot be read. */
  restore({ talk }) {
    if (!talk) return;
    this.stop();
    this.talk = turns.imported(talk);
    this.system.value = this.talk.system;
    if (this.talk.system) this.system.closest("details").open = true;
    this.problem.hide();
    this.render();
  }

  // ---- what is shown

  render() {
    const now = turns.shown(this.talk);
    const told = {
      edit: (id, text) => this.#edit(id, text),
      again: (id) => this.#answer(this.talk.turns[id].parent),
      beside: (id, step) => this.#change(turns.chooseBeside(this.talk, id, step)),
      remove: (id) => this.#change(turns.removeTurn(this.talk, id)),
    };
    const follow = this.work && nearEnd();
    const views = now.map((turn) => {
      const known = this.#views.get(turn.id) || new TurnView(turn, told, this.page.alternatives);
      this.#views.set(turn.id, known);
      known.show(turn, turns.placeOf(this.talk, turn.id), this.#writing.has(turn.id));
      return known.element;
    });
    if (views.length !== this.list.children.length || views.some((view, index) => view !== this.list.children[index])) this.list.replaceChildren(...views);
    for (const id of this.#views.keys()) if (!(id in this.talk.turns)) this.#views.delete(id);
    this.#offerStarts(now.length === 0);
    this.untaught.hidden = this.page.model?.chat !== false;
    if (!this.sendButton.firstChild) this.#working(false);
    if (follow) this.#toEnd(false);
  }

  #change(talk) {
    this.talk = talk;
    this.render();
  }

  #offerStarts(empty) {
    this.starts.hidden = !empty || this.page.model?.chat === false;
    if (this.starts.hidden || this.starts.dataset.language === languageNow()) return;
    this.starts.dataset.language = languageNow();
    this.starts.replaceChildren(h("p", { class: "lead", t: "chat_lead" }), h("div", { class: "examples" }, ...STARTS[languageNow()].map((text) =>
      h("button", { type: "button", class: "example", on: { click: () => ((this.field.value = text), this.run()) } }, text))));
  }

  #toEnd(always) {
    if (always || nearEnd()) requestAnimationFrame(() => scrollTo({ top: document.body.scrollHeight }));
  }

  #working(on) {
    this.sendButton.classList.toggle("stop", on);
    this.sendButton.replaceChildren(on ? icon("stop") : "", h("span", { t: on ? "stop" : "send" }), h("kbd", {}, on ? "Esc" : "↵"));
    this.page.busy(on);
    this.render();
  }

  focus() {
    this.field.focus();
  }

  sayAgain() {
    this.gauge.sayAgain();
    this.render();
  }
}

function nearEnd() {
  return innerHeight + scrollY > document.body.scrollHeight - 200;
}
