// One turn of a conversation: its words, what can be done with it, and its tokens if one wants to see them.

import { copy, h, iconButton } from "./dom.js";
import { Ink, spansOf, walkable } from "./ink.js";
import { elementsOf } from "./markdown_view.js";
import { say } from "./words.js";

export class TurnView {
  #text = null;
  #written = null;

  /** ``told``: edit(id, text), again(id), beside(id, step), remove(id); ``sheet`` shows alternatives. */
  constructor(turn, told, sheet) {
    this.id = turn.id;
    this.told = told;
    this.sheet = sheet;
    this.inked = false;
    this.words = h("div", { class: "words" });
    this.place = h("span", { class: "place" });
    this.facts = h("span", { class: "facts" });
    this.actions = h("div", { class: "turn-actions" }, ...this.#buttons(turn));
    this.element = h("article", { class: `turn ${turn.role}`, "data-turn": String(turn.id) },
      h("header", {}, h("b", { t: "role_" + turn.role }), this.place), this.words, this.actions);
  }

  #buttons({ id, role }) {
    const mine = role === "user";
    this.inkButton = mine ? null : iconButton("drop", "see_tokens", () => this.#ink(!this.inked), { "aria-pressed": "false" });
    return [
      iconButton("copy", "copy", () => copy(this.#text)),
      iconButton("edit", "edit", () => this.#edit()),
      mine ? null : iconButton("again", "regenerate", () => this.told.again(id)),
      this.inkButton,
      iconButton("trash", "remove_turn", () => this.told.remove(id)),
      this.facts,
    ].filter(Boolean);
  }

  /** Show the turn as it is: ``place`` is [index, count] among its alternatives, ``writing`` while it grows. */
  show(turn, [index, count], writing) {
    this.element.classList.toggle("growing", writing);
    this.words.setAttribute("aria-busy", String(writing));
    this.#switch(index, count, writing);
    this.facts.textContent = writing ? "" : factsOf(turn.meta);
    if (this.inkButton) this.inkButton.hidden = !turn.parts || !turn.parts.some((part) => typeof part.logprob === "number");
    if (this.editing || (turn.text === this.#text && this.#written === writing)) return;
    this.#text = turn.text;
    this.#written = writing;
    this.parts = turn.parts;
    this.#draw(writing);
  }

  #switch(index, count, writing) {
    this.place.hidden = count < 2;
    const words = `${index + 1}/${count}`;
    if (this.place.dataset.words === words && this.place.dataset.writing === String(writing)) return;
    this.place.dataset.words = words;
    this.place.dataset.writing = String(writing);
    const held = this.place.contains(document.activeElement) ? [...this.place.children].indexOf(document.activeElement) : -1;
    this.place.replaceChildren(
      iconButton("left", "previous", () => this.told.beside(this.id, -1), { disabled: index === 0 || writing }),
      h("span", { class: "count" }, words),
      iconButton("right", "next", () => this.told.beside(this.id, 1), { disabled: index === count - 1 || writing }),
    );
    if (held >= 0) this.place.children[held].focus();
  }

  #draw(writing) {
    this.words.classList.toggle("inked", this.inked);
    if (this.inked && this.parts) {
      const ink = new Ink(h("div", { class: "token-text", role: "group", tLabel: "tokens_walk" }));
      ink.paint(spansOf(this.parts));
      walkable(ink, (span, element) => this.sheet.show(span, element), () => this.sheet.leave());
      this.words.replaceChildren(ink.element);
    } else if (!this.#text && writing) {
      this.words.replaceChildren(h("span", { class: "waiting", tLabel: "waiting", role: "img" }, h("i"), h("i"), h("i")));
    } else {
      this.words.replaceChildren(...elementsOf(this.#text));
    }
  }

  #ink(on) {
    this.inked = on;
    this.inkButton.setAttribute("aria-pressed", String(on));
    this.#draw(false);
  }

  #edit() {
    if (this.editing) return;
    this.editing = true;
    const field = h("textarea", { class: "text", tLabel: "edit", rows: Math.min(14, this.#text.split("\n").length + 1), value: this.#text });
    const end = (text) => {
      this.editing = false;
      if (text !== null && text.trim() && text !== this.#text) this.told.edit(this.id, text);
      else {
        this.#draw(false);
        this.actions.querySelectorAll("button")[1].focus();
      }
    };
    const form = h("form", { class: "edit", on: { submit: (event) => (event.preventDefault(), end(field.value)) } }, field,
      h("div", { class: "bar" }, h("button", { class: "primary", t: "use_edit" }), h("button", { type: "button", class: "quiet", t: "cancel", on: { click: () => end(null) } })));
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        end(null);
      } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        event.stopPropagation();
        end(field.value);
      }
    });
    this.words.replaceChildren(form);
    field.focus();
  }
}

function factsOf(meta) {
  if (!meta) return "";
  const facts = [];
  if (meta.tokens) facts.push(say("tokens_written", { n: meta.tokens }));
  if (meta.speed) facts.push(say("tokens_a_second", { n: meta.speed < 10 ? meta.speed.toFixed(1) : Math.round(meta.speed) }));
  if (meta.end && meta.end !== "stop") facts.push(say("end_" + (meta.end === "length" ? "length" : "stopped")));
  return facts.join(" · ");
}
