// The playground: puts its parts together, and knows the model, the view, the language and the keys of now.

import { Alternatives } from "./alternatives.js";
import { ApiError, hasKey, models } from "./api.js";
import { Chat } from "./chat.js";
import { Compare } from "./compare.js";
import { Complete } from "./complete.js";
import { KeyDialog, KeysDialog, RequestDialog } from "./dialogs.js";
import { announce, copy, h, icon, iconButton, sayAgain } from "./dom.js";
import { keep, kept, recall, remember } from "./memory.js";
import { Report } from "./report.js";
import { readSettings } from "./request.js";
import { Panel, Settings } from "./settings.js";
import { packed, unpacked } from "./share.js";
import { wordsOf } from "./signs.js";
import { languageNow, preferred, say, setLanguage } from "./words.js";

const VIEWS = ["complete", "chat", "compare", "report"];
const WIDE = matchMedia("(min-width: 1080px)");
const MAC = /Mac|iPhone|iPad/.test(navigator.platform);

class Page {
  models = [];
  model = null;
  view = null;
  runKeys = MAC ? "⌘ ↵" : "Ctrl ↵";

  constructor() {
    setLanguage(recall("language") || preferred(navigator.languages));
    this.#theme(recall("theme"));
    this.settings = new Settings();
    this.alternatives = new Alternatives();
    this.panel = new Panel(this.settings);
    this.requests = new RequestDialog();
    this.key = new KeyDialog(() => this.load());
    this.keys = new KeysDialog(this.runKeys);
    this.views = { complete: new Complete(this), chat: new Chat(this), compare: new Compare(this), report: new Report() };
    this.#head();
    this.#body();
    this.#speak(languageNow());
    this.go(recall("view") === "chat" ? "chat" : "complete");
    document.addEventListener("keydown", (event) => this.#key(event));
    window.addEventListener("hashchange", () => this.#open());
    window.addEventListener("pagehide", () => keep("work", { complete: this.views.complete.draft.kept(), chat: this.views.chat.state().talk }));
    this.settings.listen(() => this.#counts());
    this.#counts();
  }

  async start() {
    this.#resume(kept("work"));
    await this.load();
    await this.#open();
  }

  /** Go on with what was written before the page was loaded again. */
  #resume(work) {
    if (!work) return;
    try {
      this.views.chat.restore({ talk: work.chat });
      this.views.complete.resume(work.complete);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // kept by an older version of the page
    }
  }

  /** Ask the server for its models. */
  async load() {
    try {
      this.models = await models();
      this.notice.hidden = true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.refused(error);
      this.notice.hidden = false;
      this.notice.firstChild.textContent = wordsOf(error);
      return;
    }
    this.select.replaceChildren(...this.models.map(({ id }) => h("option", { value: id }, id)));
    this.#use(this.models.find(({ id }) => id === recall("model")) || this.models[0]);
  }

  #use(model) {
    this.model = model || null;
    if (!model) return;
    this.select.value = model.id;
    this.one.textContent = model.id;
    this.select.hidden = this.models.length < 2;
    this.one.hidden = !this.select.hidden;
    remember("model", model.id);
    this.tabs.report.hidden = !model.report || hasKey(); // a frame sends no key
    if (model.report) this.views.report.address = model.report;
    for (const view of Object.values(this.views)) view.sayAgain();
    if (this.view.name === "report") this.go(this.tabs.report.hidden ? "complete" : "report");
  }

  /** Whether there is a model to ask; if not, that is said. */
  ready() {
    if (!this.model) this.load();
    return this.model !== null;
  }

  refused(error) {
    if (error.status === 401) this.key.open();
  }

  busy(on) {
    document.documentElement.classList.toggle("busy", on);
  }

  go(name) {
    if (this.view && this.view.name !== name) this.view.stop?.();
    this.alternatives.hide();
    this.view = this.views[name];
    for (const view of Object.values(this.views)) view.element.hidden = view !== this.view;
    for (const [tab, element] of Object.entries(this.tabs)) {
      if (tab === name) element.setAttribute("aria-current", "page");
      else element.removeAttribute("aria-current");
    }
    document.body.dataset.view = name;
    remember("view", name);
    this.view.focus();
  }

  // ---- the frame of the page

  #head() {
    this.tabs = Object.fromEntries(VIEWS.map((name) => [name, h("button", { type: "button", t: "view_" + name, hidden: name === "report", on: { click: () => this.go(name) } })]));
    this.select = h("select", { tLabel: "model", hidden: true, on: { change: () => this.#use(this.models.find(({ id }) => id === this.select.value)) } });
    this.one = h("span", { class: "model-name" });
    this.language = h("button", { type: "button", class: "language", on: { click: () => this.#speak(languageNow() === "en" ? "zh" : "en") } });
    this.light = iconButton("moon", "theme", () => this.#theme(this.#dark() ? "light" : "dark"));
    this.tune = iconButton("tune", "settings", () => this.#settings(!this.#open_), { "aria-expanded": "false", "aria-controls": "settings" });
    document.getElementById("views").append(...Object.values(this.tabs));
    document.getElementById("model").append(this.select, this.one);
    document.getElementById("tools").append(
      iconButton("code", "view_code", () => this.requests.open(() => this.view.request())),
      iconButton("share", "share", () => this.#share()),
      this.language, this.light,
      iconButton("keys", "keys", () => this.keys.open(), { class: "icon-button for-keys" }),
      this.tune);
    this.#theme(null);
  }

  #body() {
    this.notice = h("div", { class: "problem", role: "alert", hidden: true }, h("p"), h("button", { type: "button", class: "quiet", t: "try_again", on: { click: () => this.load() } }));
    document.getElementById("main").append(this.notice, ...Object.values(this.views).map((view) => view.element));
    this.aside = document.getElementById("settings");
    this.aside.append(iconButton("close", "close", () => this.#settings(false), { class: "icon-button close-settings" }), this.panel.body);
    this.veil = h("div", { class: "veil", on: { click: () => this.#settings(false) } });
    document.body.append(this.veil);
    this.#settings(WIDE.matches && recall("panel", true), false);
    WIDE.addEventListener("change", () => this.#settings(WIDE.matches, false));
  }

  #open_ = false;

  #settings(open, told = true) {
    this.#open_ = open;
    document.body.classList.toggle("with-settings", open);
    this.aside.inert = !open;
    this.tune.setAttribute("aria-expanded", String(open));
    if (!told) return;
    if (WIDE.matches) remember("panel", open);
    if (open) this.aside.querySelector(WIDE.matches ? "input" : "button").focus();
    else this.tune.focus();
  }

  /** How many settings are not as at first is shown on the button that opens them. */
  #counts() {
    this.tune.classList.toggle("changed", this.settings.values.stop.length > 0 || this.settings.values.format !== "text");
  }

  #speak(language) {
    setLanguage(language);
    document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
    document.title = say("title");
    this.language.textContent = language === "zh" ? "English" : "中文";
    this.language.lang = language === "zh" ? "en" : "zh-Hans";
    remember("language", language);
    this.alternatives.hide();
    sayAgain();
    this.panel.show();
    for (const view of Object.values(this.views)) view.sayAgain();
  }

  #dark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  #theme(theme) {
    if (theme === "dark" || theme === "light") {
      document.documentElement.dataset.theme = theme;
      remember("theme", theme);
    }
    this.light?.replaceChildren(icon(this.#dark() ? "sun" : "moon"));
  }

  async #share() {
    if (!this.view.state) return;
    const state = { view: this.view.name, model: this.model?.id, settings: this.settings.values, ...this.view.state() };
    const link = new URL("#" + (await packed(state)), location.href).href;
    if (await copy(link)) return;
    history.replaceState(null, "", link);
    announce("link_shown");
  }

  /** Open what the address holds, if it holds anything. */
  async #open() {
    const state = await unpacked(location.hash);
    if (!state || !["complete", "chat", "compare"].includes(state.view)) return;
    history.replaceState(null, "", location.pathname); // opened once; from now on the work is one's own
    this.settings.change(readSettings(state.settings));
    const model = this.models.find(({ id }) => id === state.model);
    if (model) this.#use(model);
    this.go(state.view);
    try {
      this.view.restore(state);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      announce("not_opened");
    }
  }

  #key(event) {
    const command = event.ctrlKey || event.metaKey;
    const inDialog = document.querySelector("dialog[open]");
    if (event.key === "Escape" && !inDialog) this.#escape();
    else if (inDialog) return;
    else if (command && event.key === "Enter") {
      event.preventDefault();
      if (event.shiftKey && this.view.again) this.view.again();
      else this.view.run?.();
    } else if (event.key === "F1") {
      event.preventDefault();
      this.keys.open();
    } else if (event.altKey && !command) this.#alt(event);
  }

  #escape() {
    if (this.alternatives.shown) this.alternatives.hide();
    else if (this.#open_ && !WIDE.matches) this.#settings(false);
    else this.view.stop?.();
  }

  #alt(event) {
    const view = /^Digit([1-4])$/.exec(event.code);
    if (view) {
      const name = VIEWS[view[1] - 1];
      if (!this.tabs[name].hidden) this.go(name);
    } else if (event.code === "KeyS") this.#settings(!this.#open_);
    else if (event.code === "KeyC" && this.view.request) this.requests.open(() => this.view.request());
    else if ((event.code === "Comma" || event.code === "Period") && this.view.beside) this.view.beside(event.code === "Comma" ? -1 : 1);
    else return;
    event.preventDefault();
  }
}

new Page().start();
