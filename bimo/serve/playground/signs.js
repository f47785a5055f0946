// Small signs that several views share: the legend of colours, the gauge of the context, and what went wrong.

import { MOST_BITS } from "./colour.js";
import { h } from "./dom.js";
import { say } from "./words.js";

/** The scale of a reading's colours. */
export function legend(reading) {
  if (reading === "off") return [];
  const ends = reading === "probability" ? ["0%", "100%"] : [say("bits", { n: 0 }), say("bits", { n: MOST_BITS + "+" })];
  return [h("span", {}, ends[0]), h("i", { class: "scale", "aria-hidden": "true" }), h("span", {}, ends[1])];
}

/** How much of the context a text fills. */
export class Gauge {
  #last = null;

  constructor() {
    this.words = h("span");
    this.fill = h("i");
    this.element = h("span", { class: "gauge", hidden: true }, this.words, h("span", { class: "track", "aria-hidden": "true" }, this.fill));
  }

  show(tokens, context) {
    this.#last = [tokens, context];
    this.element.hidden = false;
    this.words.textContent = context ? say("context", { n: tokens, all: context }) : say("tokens_in_all", { n: tokens });
    this.fill.parentElement.hidden = !context;
    const share = context ? tokens / context : 0;
    this.fill.style.setProperty("--filled", String(Math.min(1, share)));
    this.element.classList.toggle("full", share > 0.9);
  }

  sayAgain() {
    if (this.#last) this.show(...this.#last);
  }
}

/** What went wrong, as the server says it, and a way to try again. */
export class Problem {
  constructor(again) {
    this.words = h("p");
    this.element = h("div", { class: "problem", role: "alert", hidden: true }, this.words,
      h("button", { type: "button", class: "quiet", t: "try_again", on: { click: () => again() } }));
  }

  /** ``problem``: an ApiError, or words. */
  show(problem) {
    this.words.textContent = typeof problem === "string" ? problem : wordsOf(problem);
    this.element.hidden = false;
  }

  hide() {
    this.element.hidden = true;
  }
}

export function wordsOf({ status, message }) {
  if (status === 0) return say("no_answer");
  if (status === 401) return say("key_needed");
  if (status === 429) return say("too_many", { why: message });
  return message ? say("refused", { why: message }) : say("refused_status", { status });
}
