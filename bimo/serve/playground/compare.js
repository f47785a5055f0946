// Compare: one prompt, two models or two settings, the same seed; where the answers part is marked.

import { ApiError } from "./api.js";
import { measure } from "./colour.js";
import { eachFrame, h, icon } from "./dom.js";
import { shared } from "./growth.js";
import { Ink, spansOf, walkable } from "./ink.js";
import { PRESETS, SETTINGS, chatRequest, completionRequest, randomSeed, readValue } from "./request.js";
import { Problem, legend } from "./signs.js";
import { Work, PATHS } from "./work.js";
import { languageNow, say } from "./words.js";

const SIDES = ["a", "b"];
const FIRST = { a: "precise", b: "creative" }; // what one model is asked with
const OWN = ["temperature", "top_p"]; // what each side sets for itself

class Side {
  constructor(name, page) {
    this.name = name;
    this.page = page;
    this.parts = [];
    this.work = null;
    const id = (what) => `${name}-${what}`;
    this.model = h("select", { id: id("model"), hidden: true, on: { change: () => this.#about() } });
    this.one = h("span", { class: "model-name" });
    this.about = h("p", { class: "about" });
    this.preset = h("select", { id: id("preset") });
    this.fields = Object.fromEntries(OWN.map((key) => [key, h("input", { id: id(key), class: "number", type: "number", step: "any", min: String(SETTINGS[key].least), max: String(SETTINGS[key].most) })]));
    this.ink = new Ink(h("div", { class: "token-text", role: "group", tLabel: ["side_text", { side: name.toUpperCase() }] }));
    walkable(this.ink, (span, element) => page.alternatives.show(span, element), () => page.alternatives.leave());
    this.facts = h("p", { class: "status-line", role: "status" });
    this.problem = new Problem(() => this.again());
    this.preset.addEventListener("change", () => this.#use(this.preset.value));
    const field = (what, label, input) => h("div", { class: "field" }, h("label", { for: id(what), t: label }), input);
    this.element = h("section", { class: `side side-${name}`, tLabel: ["side", { side: name.toUpperCase() }] },
      h("div", { class: "side-head" },
        h("div", { class: "who" }, h("b", { class: "letter", "aria-hidden": "true" }, name.toUpperCase()),
          h("div", { class: "field" }, h("label", { for: id("model"), class: "hidden", t: "model" }), this.model, this.one), this.about),
        field("preset", "preset", this.preset), ...OWN.map((key) => field(key, "set_" + key, this.fields[key]))),
      h("div", { class: "sheet" }, this.ink.element), this.problem.element, this.facts);
    this.fill();
    this.#use(FIRST[name]);
  }

  /** Offer the models and presets of now; several models are compared with equal settings at first. */
  fill() {
    const { models } = this.page, known = this.model.value, preset = this.preset.value;
    this.model.replaceChildren(...models.map(({ id }) => h("option", { value: id }, id)));
    this.model.hidden = models.length < 2;
    this.one.hidden = !this.model.hidden;
    const model = models.find(({ id }) => id === known) || models[SIDES.indexOf(this.name)] || models[0];
    if (model) this.model.value = this.one.textContent = model.id;
    this.#about();
    const names = [...Object.keys(PRESETS).map((name) => [name, say("preset_" + name)]), ...Object.keys(this.page.settings.own).map((name) => [name, name])];
    this.preset.replaceChildren(h("option", { value: "" }, say("preset_none")), ...names.map(([value, text]) => h("option", { value }, text)));
    this.preset.value = preset;
    if (!known && models.length > 1) this.#use("balanced");
  }

  /** Ask this model, if there is one of this name. */
  choose(name) {
    if (this.page.models.some(({ id }) => id === name)) this.model.value = name;
    this.#about();
  }

  /** What there is to know of the chosen model. */
  #about() {
    const model = this.page.models.find(({ id }) => id === this.model.value);
    const context = model?.context ? say("context_of", { n: model.context.toLocaleString(languageNow()) }) : null;
    this.about.textContent = [context, model?.precision, model?.chat === false ? say("no_chat") : null].filter(Boolean).join(" · ");
  }

  #use(name) {
    const preset = PRESETS[name] || this.page.settings.own[name] || this.page.settings.values;
    this.preset.value = name;
    for (const key of OWN) this.fields[key].value = preset[key];
  }

  get settings() {
    const preset = PRESETS[this.preset.value] || this.page.settings.own[this.preset.value] || {};
    const own = OWN.map((key) => [key, readValue(key, Number(this.fields[key].value))]).filter(([, value]) => value !== undefined);
    return { ...this.page.settings.values, ...preset, ...Object.fromEntries(own), n: 1 };
  }

  body(prompt, chat, seed) {
    const settings = { ...this.settings, seed };
    return chat ? chatRequest(this.model.value, [{ role: "user", content: prompt }], settings) : completionRequest(this.model.value, prompt, settings);
  }

  async run(prompt, chat, seed, paint) {
    this.again = () => this.run(prompt, chat, seed, paint);
    this.parts = [];
    this.problem.hide();
    this.ink.paint([]);
    const work = (this.work = new Work());
    try {
      await work.run(chat ? "chat" : "completion", this.body(prompt, chat, seed), (_, parts) => {
        this.parts = [...this.parts, ...parts];
        paint();
      });
    } catch (error) {
      if (!(error instanceof ApiError || error instanceof SyntaxError)) throw error;
      this.problem.show(error instanceof ApiError ? error : say("schema_wrong", { why: error.message }));
      if (error instanceof ApiError) this.page.refused(error);
    } finally {
      this.work = null;
      this.speed = work.speed;
      paint();
    }
  }

  /** Show the text; ``parting`` is where it leaves the other side's, or null. */
  show(parting) {
    this.ink.paint(spansOf(this.parts), Boolean(this.work));
    let at = null;
    for (const span of this.ink.spans) {
      const element = this.ink.elementOf(span);
      const here = parting !== null && at === null && span.end > parting;
      if (here) at = span;
      element.classList.toggle("parting", here);
    }
    const found = measure(this.parts);
    const facts = found ? [say("tokens_written", { n: found.tokens }), say("bits_a_byte", { n: found.bitsByte.toFixed(2) })] : [];
    if (this.speed && !this.work) facts.push(say("tokens_a_second", { n: Math.round(this.speed) }));
    this.facts.textContent = facts.join(" · ");
  }
}

export class Compare {
  name = "compare";

  constructor(page) {
    this.page = page;
    this.prompt = h("textarea", { id: "compare-prompt", class: "text", rows: 3, tPlaceholder: "compare_hint" });
    this.seed = h("input", { id: "compare-seed", class: "number", type: "number", min: "0", step: "1", value: String(randomSeed()) });
    this.chat = h("input", { type: "checkbox", id: "compare-chat" });
    this.runButton = h("button", { type: "button", class: "primary", on: { click: () => (this.working ? this.stop() : this.run()) } });
    this.verdict = h("p", { class: "verdict", role: "status" });
    this.legend = h("div", { class: "legend" });
    this.sides = { a: new Side("a", page), b: new Side("b", page) };
    this.element = h("div", { class: "compare by-surprise" },
      h("label", { for: "compare-prompt", class: "question", t: "prompt" }), this.prompt,
      h("div", { class: "bar" }, this.runButton,
        h("span", { class: "field inline" }, h("label", { for: "compare-seed", t: "same_seed" }), this.seed,
          h("button", { type: "button", class: "quiet", t: "new_seed", on: { click: () => (this.seed.value = String(randomSeed())) } })),
        h("label", { class: "check", for: "compare-chat" }, this.chat, h("span", { t: "as_chat" })), h("span", { class: "space" }), this.legend),
      this.verdict,
      h("div", { class: "sides" }, ...SIDES.map((name) => this.sides[name].element)));
    this.paint = eachFrame(() => this.render());
    this.#working(false);
    this.sayAgain();
  }

  get working() {
    return SIDES.some((name) => this.sides[name].work);
  }

  #seed() {
    return readValue("seed", Number(this.seed.value)) ?? 0;
  }

  request() {
    return { path: this.chat.checked ? PATHS.chat : PATHS.completion, body: this.sides.a.body(this.prompt.value, this.chat.checked, this.#seed()) };
  }

  async run() {
    const prompt = this.prompt.value;
    if (this.working || !this.page.ready() || !prompt.trim()) return;
    const running = Promise.all(SIDES.map((name) => this.sides[name].run(prompt, this.chat.checked, this.#seed(), this.paint)));
    this.#working(true);
    try {
      await running;
    } finally {
      this.#working(false);
      this.render();
    }
  }

  stop() {
    for (const name of SIDES) this.sides[name].work?.stop();
  }

  render() {
    const [a, b] = SIDES.map((name) => this.sides[name].parts.map((part) => part.text).join(""));
    const same = shared(a, b);
    const parted = same < Math.min(a.length, b.length) || (!this.working && a !== b);
    for (const name of SIDES) this.sides[name].show(parted ? same : null);
    const known = a && b && !this.working;
    this.verdict.textContent = !known ? "" : parted ? say("part_after", { n: [...a.slice(0, same)].length + 1 }) : say("no_difference");
  }

  #working(on) {
    this.runButton.classList.toggle("stop", on);
    this.runButton.replaceChildren(on ? icon("stop") : "", h("span", { t: on ? "stop" : "compare" }), h("kbd", {}, on ? "Esc" : this.page.runKeys));
    this.page.busy(on);
  }

  state() {
    const sides = SIDES.map((name) => ({ model: this.sides[name].model.value, preset: this.sides[name].preset.value, ...Object.fromEntries(OWN.map((key) => [key, Number(this.sides[name].fields[key].value)])) }));
    return { text: this.prompt.value, seed: this.#seed(), chat: this.chat.checked, sides };
  }

  restore({ text, seed, chat, sides }) {
    if (typeof text === "string") this.prompt.value = text.slice(0, 100_000);
    if (readValue("seed", seed) !== undefined) this.seed.value = String(seed);
    this.chat.checked = chat === true;
    (Array.isArray(sides) ? sides.slice(0, 2) : []).forEach((found, index) => {
      const side = this.sides[SIDES[index]];
      if (typeof found !== "object" || found === null) return;
      for (const [key, field] of Object.entries(side.fields)) if (readValue(key, found[key]) !== undefined) field.value = String(found[key]);
      side.choose(found.model);
      side.preset.value = [...side.preset.options].some(({ value }) => value === found.preset) ? found.preset : "";
    });
  }

  focus() {
    this.prompt.focus();
  }

  sayAgain() {
    this.legend.replaceChildren(...legend("surprise"));
    for (const name of SIDES) this.sides[name].fill();
    this.render();
  }
}
