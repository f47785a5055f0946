// The page that is written on: a textarea, so that typing, pasting and every input method work as everywhere, and
// under it, letter for letter, the same text painted as tokens.

import { h } from "./dom.js";
import { Ink, scored } from "./ink.js";

const HOVER = 140; // milliseconds that the pointer rests on a token before its alternatives show

export class Editor {
  #composing = false;
  #waiting = 0;
  #hovered = null;

  /**
   * ``told`` is called as ``edited(text, kind)``, ``reached(span or null)`` (the caret's token),
   * ``hovered(span, element)`` and ``left()``, ``tapped(span, element)``, ``undo()`` and ``redo()``.
   */
  constructor(told) {
    this.told = told;
    this.field = h("textarea", {
      class: "writing", spellcheck: false, rows: 1, autocomplete: "off", autocapitalize: "off", tLabel: "editor", tPlaceholder: "editor_hint",
      "aria-describedby": "token-line",
    });
    this.paper = h("div", { class: "painting", "aria-hidden": "true" });
    this.tail = h("span", { class: "tail" }, "\u200b");
    this.ink = new Ink(h("span"));
    this.paper.append(this.ink.element, this.tail);
    this.element = h("div", { class: "editor" }, this.paper, this.field);
    this.#listen();
  }

  get caret() {
    return this.field.selectionStart;
  }

  get text() {
    return this.field.value;
  }

  /** Show ``spans``, which together are the text; ``caret`` is where to put the caret, if it moves. */
  show(spans, { caret = null, fresh = false } = {}) {
    const text = spans.map((span) => span.text).join("");
    if (this.field.value !== text && !this.#composing) {
      const kept = Math.min(this.caret, text.length);
      this.field.value = text;
      this.field.setSelectionRange(caret ?? kept, caret ?? kept);
    } else if (caret !== null && !this.#composing) {
      this.field.setSelectionRange(caret, caret);
    }
    this.ink.paint(spans, fresh);
  }

  /** While the model writes, the text is its own. */
  lock(locked) {
    this.field.readOnly = locked;
    this.element.classList.toggle("growing", locked);
    this.field.setAttribute("aria-busy", String(locked));
  }

  tokenAtCaret() {
    const span = this.ink.spanBefore(this.caret);
    return span && scored(span) ? span : null;
  }

  #listen() {
    const { field } = this;
    field.addEventListener("compositionstart", () => (this.#composing = true));
    field.addEventListener("compositionend", () => {
      this.#composing = false;
      this.told.edited(field.value, "compose");
    });
    field.addEventListener("beforeinput", (event) => {
      if (event.inputType !== "historyUndo" && event.inputType !== "historyRedo") return;
      event.preventDefault(); // the browser's own memory knows nothing of what the model wrote
      this.told[event.inputType === "historyUndo" ? "undo" : "redo"]();
    });
    field.addEventListener("input", (event) => this.told.edited(field.value, event.inputType));
    document.addEventListener("selectionchange", () => {
      if (document.activeElement === field) this.#reach();
    });
    field.addEventListener("blur", () => this.ink.mark(null));
    field.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse" && !event.buttons) this.#hover(event);
    });
    field.addEventListener("pointerleave", () => this.#leave());
    field.addEventListener("click", (event) => {
      const span = this.ink.spanAtPoint(event.clientX, event.clientY);
      if (span && scored(span) && field.selectionStart === field.selectionEnd) this.told.tapped(span, this.ink.elementOf(span));
    });
  }

  #reach() {
    const span = this.tokenAtCaret();
    this.ink.mark(span);
    this.told.reached(span);
  }

  #hover(event) {
    const span = this.ink.spanAtPoint(event.clientX, event.clientY);
    if (span === this.#hovered) return;
    this.#leave();
    this.#hovered = span;
    if (!span || !scored(span)) return;
    this.#waiting = setTimeout(() => this.told.hovered(span, this.ink.elementOf(span)), HOVER);
  }

  #leave() {
    clearTimeout(this.#waiting);
    if (this.#hovered && scored(this.#hovered)) this.told.left();
    this.#hovered = null;
  }
}
