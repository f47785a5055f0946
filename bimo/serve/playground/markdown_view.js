// Parsed Markdown as elements. Text becomes text nodes; only http and https become links.

import { copy, h, iconButton } from "./dom.js";
import { parse } from "./markdown.js";

export function elementsOf(text) {
  return parse(text).map(block);
}

function block(one) {
  switch (one.kind) {
    case "h":
      return h("p", { class: `heading level-${Math.min(one.level, 4)}` }, ...inside(one.content));
    case "code":
      return h("div", { class: "code-block" },
        h("div", { class: "code-head" }, h("span", {}, one.language), iconButton("copy", "copy", () => copy(one.text))),
        h("pre", { tabIndex: 0 }, h("code", {}, one.text)));
    case "list":
      return h(one.start === null ? "ul" : "ol", one.start === null ? {} : { start: one.start }, ...one.items.map(item));
    case "quote":
      return h("blockquote", {}, ...one.blocks.map(block));
    case "rule":
      return h("hr");
    case "table":
      return table(one);
    default:
      return h("p", {}, ...inside(one.content));
  }
}

function item(blocks) {
  const [first, ...rest] = blocks;
  const opening = first && first.kind === "p" ? inside(first.content) : blocks.slice(0, 1).map(block);
  return h("li", {}, ...opening, ...rest.map(block));
}

function table({ head, rows }) {
  const row = (cells, tag) => h("tr", {}, ...cells.map((cell) => h(tag, {}, ...inside(cell))));
  return h("div", { class: "scroll", tabIndex: 0, role: "group", tLabel: "table" },
    h("table", {}, h("thead", {}, row(head, "th")), h("tbody", {}, ...rows.map((cells) => row(cells, "td")))));
}

function inside(content) {
  return content.flatMap((one) => {
    if (typeof one === "string") return broken(one);
    if (one.kind === "code") return [h("code", {}, one.text)];
    if (one.kind === "link") return [h("a", { href: one.address, target: "_blank", rel: "noopener noreferrer" }, ...inside(one.content))];
    return [h(one.kind, {}, ...inside(one.content))];
  });
}

function broken(text) {
  return text.split("\n").flatMap((line, index) => (index ? [h("br"), line] : [line]));
}
