// The settings of all requests, and the panel that sets them.

import { h, iconButton } from "./dom.js";
import { recall, remember } from "./memory.js";
import { FORMATS, MOST_STOPS, PRESETS, PRESET_KEYS, SETTINGS, firstSettings, presetOf, readSettings, readValue } from "./request.js";
import { say } from "./words.js";

/** The settings of now, remembered by the browser; ``change`` tells all who asked. */
export class Settings {
  #listeners = [];

  constructor() {
    this.values = readSettings(recall("settings"));
    this.own = Object.fromEntries(Object.entries(recall("presets", {})).map(([name, preset]) => [name, cleaned(preset)]));
  }

  listen(listener) {
    this.#listeners.push(listener);
  }

  change(changes) {
    this.values = { ...this.values, ...changes };
    remember("settings", this.values);
    for (const listener of this.#listeners) listener();
  }

  /** Use a preset, built in or one's own. */
  use(name) {
    const preset = PRESETS[name] || this.own[name];
    if (preset) this.change(preset);
  }

  keep(name) {
    this.own = { ...this.own, [name]: Object.fromEntries(PRESET_KEYS.map((key) => [key, this.values[key]])) };
    remember("presets", this.own);
    this.change({});
  }

  drop(name) {
    this.own = Object.fromEntries(Object.entries(this.own).filter(([one]) => one !== name));
    remember("presets", this.own);
    this.change({});
  }
}

function cleaned(preset) {
  const settings = readSettings(preset);
  return Object.fromEntries(PRESET_KEYS.map((key) => [key, settings[key]]));
}

export class Panel {
  #fields = {};

  constructor(settings) {
    this.settings = settings;
    this.presets = h("div", { class: "presets", role: "group", tLabel: "presets" });
    this.name = h("input", { class: "text", maxLength: 40, tLabel: "preset_name", tPlaceholder: "preset_name" });
    const save = h("form", { class: "save", on: { submit: (event) => this.#save(event) } }, this.name, h("button", { class: "quiet", t: "save" }));
    this.body = h(
      "div",
      { class: "settings-body" },
      h("h2", { t: "settings" }),
      this.presets,
      h("details", {}, h("summary", { t: "save_preset" }), save),
      ...["temperature", "top_p", "max_tokens", "n", "seed"].map((name) => this.#row(name)),
      this.#stops(),
      this.#format(),
      h("details", { class: "more" }, h("summary", { t: "more_settings" }),
        ...["min_p", "top_k", "frequency_penalty", "presence_penalty", "repetition_penalty"].map((name) => this.#row(name))),
      h("button", { type: "button", class: "quiet", t: "reset", on: { click: () => settings.change(firstSettings()) } }),
    );
    settings.listen(() => this.show());
    this.show();
  }

  /** Show the settings of now. */
  show() {
    const { values, own } = this.settings;
    for (const [name, write] of Object.entries(this.#fields)) write(values[name]);
    const now = presetOf(values, own);
    const button = (name, label) =>
      h("button", { type: "button", class: "preset", "aria-pressed": String(now === name), on: { click: () => this.settings.use(name) } }, label);
    this.presets.replaceChildren(
      ...Object.keys(PRESETS).map((name) => button(name, say("preset_" + name))),
      ...Object.keys(own).map((name) =>
        h("span", { class: "own-preset" }, button(name, name), iconButton("close", ["drop_preset", { name }], () => this.settings.drop(name)))),
    );
  }

  #save(event) {
    event.preventDefault();
    const name = this.name.value.trim();
    if (!name || name in PRESETS) return;
    this.settings.keep(name);
    this.name.value = "";
  }

  #row(name) {
    const { least, most, step, optional, kind } = SETTINGS[name];
    const id = "set-" + name;
    const explained = id + "-about";
    const number = h("input", {
      id, type: "number", min: String(least), max: String(most), step: String(kind === "whole" ? 1 : "any"), class: "number",
      "aria-describedby": explained, ...(optional ? { tPlaceholder: "at_random" } : {}),
    });
    const slider = optional || name === "max_tokens" ? null : h("input", { type: "range", min: String(least), max: String(most), step: String(step), tLabel: "set_" + name, tabIndex: -1 });
    const read = (field) => {
      const value = readValue(name, field.value === "" ? (optional ? null : NaN) : Number(field.value));
      number.setAttribute("aria-invalid", String(value === undefined));
      if (value !== undefined) this.settings.change({ [name]: value });
    };
    number.addEventListener("input", () => read(number));
    number.addEventListener("blur", () => this.show());
    slider?.addEventListener("input", () => read(slider));
    this.#fields[name] = (value) => {
      if (document.activeElement !== number) {
        number.value = value ?? "";
        number.removeAttribute("aria-invalid");
      }
      if (slider) slider.value = value;
      slider?.style.setProperty("--filled", String((value - least) / (most - least)));
    };
    return h("div", { class: "setting" }, h("label", { for: id, t: "set_" + name }), number, slider, h("p", { id: explained, class: "about", t: "about_" + name }));
  }

  #stops() {
    const field = h("input", { id: "set-stop", class: "text", "aria-describedby": "set-stop-about", tPlaceholder: "stop_hint" });
    const chips = h("div", { class: "chips" });
    const add = () => {
      const text = field.value.replace(/\\n/g, "\n").replace(/\\t/g, "\t");
      const { stop } = this.settings.values;
      if (!text || stop.includes(text) || stop.length >= MOST_STOPS) return;
      field.value = "";
      this.settings.change({ stop: [...stop, text] });
    };
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing || event.ctrlKey) return;
      event.preventDefault();
      add();
    });
    field.addEventListener("change", add);
    this.#fields.stop = (stop) => {
      chips.replaceChildren(...stop.map((text) =>
        h("span", { class: "chip" }, h("code", {}, JSON.stringify(text).slice(1, -1)),
          iconButton("close", ["drop_stop", { text }], () => this.settings.change({ stop: stop.filter((one) => one !== text) })))));
      field.disabled = stop.length >= MOST_STOPS;
    };
    return h("div", { class: "setting wide" }, h("label", { for: "set-stop", t: "set_stop" }), field, chips, h("p", { id: "set-stop-about", class: "about", t: "about_stop" }));
  }

  #format() {
    const choice = h("select", { id: "set-format", "aria-describedby": "set-format-about" }, ...FORMATS.map((value) => h("option", { value, t: "format_" + value })));
    const schema = h("textarea", { class: "text code", rows: 8, spellcheck: false, tLabel: "schema", "aria-describedby": "schema-wrong" });
    const wrong = h("p", { id: "schema-wrong", class: "wrong", role: "status" });
    choice.addEventListener("change", () => this.settings.change({ format: choice.value }));
    schema.addEventListener("input", () => this.settings.change({ schema: schema.value }));
    const look = () => {
      const on = this.settings.values.format === "json_schema";
      schema.hidden = wrong.hidden = !on;
      try {
        JSON.parse(schema.value);
        wrong.textContent = "";
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        wrong.textContent = say("schema_wrong", { why: error.message });
      }
      schema.setAttribute("aria-invalid", String(wrong.textContent !== ""));
    };
    this.#fields.schema = (value) => {
      if (document.activeElement !== schema) schema.value = value;
      look();
    };
    this.#fields.format = (value) => {
      choice.value = value;
      look();
    };
    return h("div", { class: "setting wide" }, h("label", { for: "set-format", t: "set_format" }), choice, schema, wrong, h("p", { id: "set-format-about", class: "about", t: "about_format" }));
  }
}
