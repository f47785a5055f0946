// Text as tokens: paints spans of it, tells which one is under the pointer, and lets the arrow keys walk over them.
//   span {start, end, text, by: "you" | "model", logprob, top, pieces}

import { h } from "./dom.js";
import { strength } from "./colour.js";

/** Spans of loose parts, in the order of the text. */
export function spansOf(parts, by = "model") {
  let start = 0;
  return parts.map((part) => ({ ...part, by, start, end: (start += part.text.length) }));
}

export const scored = (span) => typeof span.logprob === "number";

/** A painter of the spans of one element; it touches only what has changed. */
export class Ink {
  #painted = [];
  #elements = [];

  constructor(element) {
    this.element = element;
  }

  /** ``fresh``: whether what is new is shown as drying. */
  paint(spans, fresh = false) {
    let same = 0;
    while (same < spans.length && same < this.#painted.length && alike(spans[same], this.#painted[same])) same++;
    for (const gone of this.#elements.splice(same)) gone.remove();
    for (const span of spans.slice(same)) {
      const element = elementFor(span, fresh);
      this.#elements.push(element);
      this.element.append(element);
    }
    this.#painted = spans;
  }

  get spans() {
    return this.#painted;
  }

  elementOf(span) {
    return this.#elements[this.#painted.indexOf(span)];
  }

  spanOf(element) {
    return this.#painted[this.#elements.indexOf(element)];
  }

  /** The span at a point of the window; null where there is none. */
  spanAtPoint(x, y) {
    const found = document.elementsFromPoint(x, y).find((element) => element.parentElement === this.element);
    return (found && this.spanOf(found)) || null;
  }

  /** The span that ends at or holds the place before character ``offset``. */
  spanBefore(offset) {
    return this.#painted.find((span) => span.start < offset && offset <= span.end) || null;
  }

  mark(span) {
    this.element.querySelector(".at")?.classList.remove("at");
    if (span) this.elementOf(span)?.classList.add("at");
  }
}

function alike(one, other) {
  return one.text === other.text && one.by === other.by && one.logprob === other.logprob && one.start === other.start;
}

function elementFor(span, fresh) {
  const element = h("span", { class: span.by }, span.text);
  if (scored(span)) {
    element.classList.add("token");
    element.style.setProperty("--p", strength(span.logprob, "probability"));
    element.style.setProperty("--s", strength(span.logprob, "surprise"));
  }
  if (fresh) element.classList.add("fresh");
  return element;
}

/**
 * Let pointer and keys reach the tokens of a text that is not edited.
 *
 * ``show(span, element)`` is called for the token reached, ``hide()`` when none is.
 */
export function walkable(ink, show, hide) {
  const { element } = ink;
  let at = null;
  const go = (span) => {
    at = span;
    ink.mark(span);
    if (span) show(span, ink.elementOf(span));
    else hide();
  };
  element.tabIndex = 0;
  element.addEventListener("pointermove", (event) => {
    const span = event.pointerType === "mouse" ? ink.spanAtPoint(event.clientX, event.clientY) : null;
    if (span && scored(span) && span !== at) go(span);
  });
  element.addEventListener("click", (event) => {
    const span = ink.spanAtPoint(event.clientX, event.clientY);
    if (span && scored(span)) go(span);
  });
  element.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape" && at) go(null);
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    const known = ink.spans.filter(scored);
    const place = at ? known.findIndex((span) => span.start === at.start) + step : 0;
    if (known[place]) go(known[place]);
    event.preventDefault();
  });
  element.addEventListener("pointerleave", () => go(null));
  element.addEventListener("blur", () => go(null));
}
