// The words of the page: which language, and what a key says in it.

import { EN } from "./words_en.js";
import { ZH } from "./words_zh.js";

const WORDS = { en: EN, zh: ZH };
let language = "en";

export function setLanguage(wanted) {
  language = wanted in WORDS ? wanted : "en";
}

export function languageNow() {
  return language;
}

/** The first language of a browser's list that the page speaks. */
export function preferred(languages) {
  const known = languages.map((name) => name.slice(0, 2).toLowerCase()).filter((name) => name in WORDS);
  return known[0] || "en";
}

/** What ``key`` says; ``{name}`` in it is replaced by ``values.name``. */
export function say(key, values = {}) {
  if (!(key in WORDS[language])) throw new RangeError(`no words for ${key}`);
  return WORDS[language][key].replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
