// The branches of a text: all of them as an outline, and those beside the present one as cards.

import { h, iconButton } from "./dom.js";
import { measure, percent } from "./colour.js";
import { ROOT, deepest, nodeText, outline } from "./growth.js";
import { say } from "./words.js";

const ROW = 60; // characters of a row
const CARD = 180;

export class Outline {
  #shown = "";

  constructor({ go, prune }) {
    this.go = go;
    this.prune = prune;
    this.list = h("ol", { class: "outline" });
    this.hint = h("p", { class: "about", t: "branches_hint" });
    this.element = h("div", { class: "outline-body" }, this.list, this.hint);
  }

  show(tree, current) {
    const rows = outline(tree, current);
    const looks = JSON.stringify(rows.map(({ id, depth, text, here }) => [id, depth, text.slice(0, ROW), here, id === current]));
    if (looks === this.#shown) return;
    this.#shown = looks;
    this.hint.hidden = rows.length > 1;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.node : null;
    this.list.replaceChildren(...rows.map((row) => this.#row(row, current)));
    if (focused) this.list.querySelector(`[data-node="${focused}"]`)?.focus();
  }

  #row({ id, depth, text, by, here }, current) {
    const words = text.slice(0, ROW).replace(/\s+/g, " ").trim() || "…";
    return h("li", { class: here ? "here" : "", vars: { "--depth": String(Math.min(depth, 8)) } },
      h("button", { type: "button", class: by, "data-node": String(id), "aria-current": id === current ? "true" : null, on: { click: () => this.go(id) } }, words),
      iconButton("trash", ["prune", { text: words.slice(0, 20) }], () => this.prune(id), { tabIndex: id === current ? 0 : -1 }));
  }
}

export class Variants {
  #shown = "";

  constructor(go) {
    this.go = go;
    this.element = h("section", { class: "variants", tLabel: "variants", hidden: true });
  }

  /** Show what stands beside the present piece of text, if anything does. */
  show(tree, current) {
    const level = current === ROOT ? [] : tree.nodes[tree.nodes[current].parent].children;
    const nodes = level.map((id) => tree.nodes[id]);
    this.element.hidden = nodes.length < 2;
    const looks = JSON.stringify([current, nodes.map((node) => [node.id, node.parts.length, node.end])]);
    if (looks === this.#shown) return;
    this.#shown = looks;
    const cards = nodes.length < 2 ? [] : nodes;
    this.element.replaceChildren(...cards.map((node, index) => this.#card(tree, node, index, current)));
  }

  #card(tree, node, index, current) {
    const text = nodeText(node);
    const found = measure(node.parts);
    const mean = found ? say("mean_probability", { p: percent(2 ** -found.bitsToken) }) : "";
    return h("button", { type: "button", class: "variant", "aria-current": node.id === current ? "true" : null, on: { click: () => this.go(deepest(tree, node.id)) } },
      h("span", { class: "which" }, h("b", {}, String(index + 1)), h("span", {}, mean)),
      h("span", { class: "words" }, text.length > CARD ? text.slice(0, CARD) + "…" : text || "…"));
  }
}
