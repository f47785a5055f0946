// What the model weighed at one place: a small sheet with the likeliest tokens, to look at or to choose from.

import { h } from "./dom.js";
import { bits, percent, probability, visible } from "./colour.js";
import { isPartial, isSpecial } from "./tokens.js";
import { say } from "./words.js";

const LINGER = 220; // milliseconds that the sheet waits for the pointer to reach it

export class Alternatives {
  #closing = 0;
  #back = null;

  constructor() {
    this.element = h("div", { class: "alternatives", role: "dialog", hidden: true, tLabel: "alternatives" });
    this.element.addEventListener("pointerenter", () => clearTimeout(this.#closing));
    this.element.addEventListener("pointerleave", () => this.leave());
    this.element.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("pointerdown", (event) => {
      if (!this.element.contains(event.target)) this.hide();
    });
    window.addEventListener("resize", () => this.hide());
    document.addEventListener("scroll", () => this.#pinned || this.hide(), { passive: true });
    document.body.append(this.element);
  }

  get shown() {
    return !this.element.hidden;
  }

  get #pinned() {
    return this.element.contains(document.activeElement);
  }

  /**
   * Show what could stand in the place of ``span``, beside the element that shows it.
   *
   * ``choose(token)`` is called with the one chosen (none can be when it is null); with ``focus`` the keys move to the
   * sheet, and back to ``back`` when it closes.
   */
  show(span, anchor, { choose = null, focus = false, back = null } = {}) {
    clearTimeout(this.#closing);
    if (this.#pinned && !focus) return;
    this.#back = back;
    this.element.replaceChildren(head(span), list(span, choose && ((token) => this.#chosen(token, choose))), choose ? foot(span) : "");
    this.element.hidden = false;
    this.#place(anchor);
    if (focus) (this.element.querySelector("button:not([disabled])") || this.element).focus();
  }

  leave() {
    clearTimeout(this.#closing);
    if (!this.#pinned) this.#closing = setTimeout(() => this.hide(), LINGER);
  }

  hide() {
    clearTimeout(this.#closing);
    if (this.element.hidden) return;
    const back = this.#pinned ? this.#back : null;
    this.element.hidden = true;
    if (back) back.focus();
  }

  #chosen(token, choose) {
    this.hide();
    choose(token);
  }

  #place(anchor) {
    if (matchMedia("(max-width: 720px)").matches) return; // there it is a sheet at the foot of the window
    const rects = anchor.getClientRects();
    const place = rects[rects.length - 1] || anchor.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const below = place.bottom + height + 10 < innerHeight || place.top < height + 10;
    this.element.style.left = Math.max(8, Math.min(place.left - 14, innerWidth - width - 8)) + "px";
    this.element.style.top = (below ? place.bottom + 6 : place.top - height - 6) + "px";
  }

  #key(event) {
    const buttons = [...this.element.querySelectorAll("button:not([disabled])")];
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (event.key === "Escape") {
      event.stopPropagation();
      this.hide();
    } else if (to !== undefined && buttons.length) {
      event.preventDefault();
      buttons[(to + buttons.length) % buttons.length].focus();
    } else if (event.key === "Tab") {
      this.hide();
    }
  }
}

/** One line about a token, to be read aloud or shown: what it is, its probability and its surprise. */
export function lineOf(span) {
  return say("token_line", { token: visible(span.text), p: percent(probability(span.logprob)), bits: bits(span.logprob).toFixed(1) });
}

function head(span) {
  const numbers = say("token_numbers", { p: percent(probability(span.logprob)), bits: bits(span.logprob).toFixed(1) });
  return h("p", { class: "which" }, h("b", {}, visible(span.text)), h("span", {}, numbers));
}

function list(span, choose) {
  const taken = span.pieces ? span.pieces[0] : { token: span.text, logprob: span.logprob };
  const top = (span.top || []).slice();
  if (!top.some(({ token }) => token === taken.token)) top.push({ ...taken, beyond: true });
  return h("ol", {}, ...top.map((one) => h("li", {}, row(one, one.token === taken.token, choose))));
}

function row({ token, logprob, beyond }, taken, choose) {
  const p = probability(logprob);
  const special = isSpecial(token);
  const name = special ? say("end_of_text") : visible(token);
  const inside = [
    h("span", { class: "bar", vars: { "--width": String(p) } }),
    h("span", { class: special ? "name special" : "name" }, (beyond ? "… " : "") + name),
    h("span", { class: "share" }, percent(p)),
  ];
  if (!choose) return h("div", { class: taken ? "row taken" : "row" }, ...inside);
  return h(
    "button",
    {
      type: "button", class: taken ? "row taken" : "row", disabled: isPartial(token), "aria-current": taken ? "true" : null,
      title: isPartial(token) ? say("part_of_a_character") : "", on: { click: () => choose({ token, logprob, special }) },
    },
    ...inside,
  );
}

function foot({ top }) {
  return h("p", { class: "hint" }, say(top.every(({ token }) => isPartial(token)) ? "parts_of_characters" : "alternatives_hint"));
}
