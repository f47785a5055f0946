// The dialogs of the page: the request and its code, the API key, and the keys.

import { hasKey, origin, setKey } from "./api.js";
import { LANGUAGES, codeFor } from "./code.js";
import { copy, h, iconButton } from "./dom.js";
import { last } from "./work.js";
import { say } from "./words.js";

function dialog(name, title, ...children) {
  const element = h("dialog", { class: name, "aria-labelledby": name + "-title" });
  const close = iconButton("close", "close", () => element.close());
  element.append(h("div", { class: "dialog-head" }, h("h2", { id: name + "-title", t: title }), close), ...children);
  element.addEventListener("click", (event) => {
    if (event.target === element) element.close(); // beside the sheet
  });
  document.body.append(element);
  return element;
}

/** Shows the request that would be sent now, as JSON and as code, and the last answer as it came. */
export class RequestDialog {
  #what = "curl";

  constructor() {
    this.tabs = h("div", { class: "segments", role: "group", tLabel: "request" }, ...["request", ...LANGUAGES, "answer"].map((what) =>
      h("button", { type: "button", "data-what": what, t: "code_" + what, on: { click: () => this.#show(what) } })));
    this.code = h("code");
    this.about = h("p", { class: "about" });
    this.element = dialog("request-dialog", "request", h("div", { class: "bar" }, this.tabs, h("span", { class: "space" }), h("a", { class: "quiet", href: "docs", target: "_blank", rel: "noopener", t: "api_docs" }), h("button", { type: "button", class: "quiet", t: "copy", on: { click: () => copy(this.code.textContent) } })),
      this.about, h("pre", { tabIndex: 0, role: "group", tLabel: "request" }, this.code));
  }

  /** ``make`` gives {path, body}. */
  open(make) {
    try {
      this.made = make();
      this.wrong = "";
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      this.made = null;
      this.wrong = say("schema_wrong", { why: error.message });
    }
    this.#show(this.#what);
    this.element.showModal();
  }

  #show(what) {
    this.#what = what;
    for (const button of this.tabs.children) button.setAttribute("aria-pressed", String(button.dataset.what === what));
    this.about.textContent = what === "answer" ? (last.path ? `POST ${last.path}` : "") : this.made ? `POST ${origin()}${this.made.path}` : "";
    this.code.textContent = this.#text(what);
  }

  #text(what) {
    if (what === "answer") return last.answer ? answerText(last.answer) : say("no_request_yet");
    if (!this.made) return this.wrong;
    if (what === "request") return JSON.stringify(this.made.body, null, 2);
    return codeFor(what, origin(), this.made.path, this.made.body, hasKey());
  }
}

function answerText(answer) {
  return Array.isArray(answer) ? answer.map((chunk) => "data: " + JSON.stringify(chunk)).join("\n\n") : JSON.stringify(answer, null, 2);
}

/** Asks for an API key; ``use`` is called when there is one. */
export class KeyDialog {
  constructor(use) {
    this.field = h("input", { id: "api-key", class: "text", type: "password", autocomplete: "off", required: true });
    const form = h("form", { on: { submit: (event) => this.#submit(event, use) } },
      h("p", { class: "about", t: "key_about" }), h("label", { for: "api-key", t: "key" }), this.field, h("div", { class: "bar" }, h("button", { class: "primary", t: "use_key" })));
    this.element = dialog("key-dialog", "key", form);
  }

  open() {
    if (!this.element.open) this.element.showModal();
  }

  #submit(event, use) {
    event.preventDefault();
    setKey(this.field.value.trim());
    this.element.close();
    use();
  }
}

export class KeysDialog {
  constructor(runKeys) {
    const rows = [
      [runKeys, "keys_run"], [runKeys.replace("↵", "⇧ ↵"), "keys_again"], ["Esc", "keys_stop"], ["Alt ↓", "keys_alternatives"],
      ["Alt , / Alt .", "keys_branches"], [runKeys.replace("↵", "Z"), "keys_undo"], [runKeys.replace("↵", "⇧ Z"), "keys_redo"],
      ["Alt 1 … 4", "keys_views"], ["Alt S", "keys_settings"], ["Alt C", "keys_code"], ["F1", "keys_keys"],
    ];
    this.element = dialog("keys-dialog", "keys", h("dl", { class: "keys" }, ...rows.flatMap(([keys, what]) => [h("dt", {}, h("kbd", {}, keys)), h("dd", { t: what })])));
  }

  open() {
    this.element.showModal();
  }
}
