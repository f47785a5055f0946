// Settings, and the requests they become: the very objects that are sent, shown and turned into code.

/** Every setting: its value at first, its kind and its bounds. ``extra`` ones are not OpenAI's. */
export const SETTINGS = {
  temperature: { first: 0.8, kind: "number", least: 0, most: 2, step: 0.05 },
  top_p: { first: 0.95, kind: "number", least: 0.01, most: 1, step: 0.01 },
  min_p: { first: 0, kind: "number", least: 0, most: 1, step: 0.01, extra: true },
  top_k: { first: 0, kind: "whole", least: 0, most: 200, step: 1, extra: true },
  max_tokens: { first: 160, kind: "whole", least: 1, most: 8192, step: 1 },
  n: { first: 1, kind: "whole", least: 1, most: 8, step: 1 },
  frequency_penalty: { first: 0, kind: "number", least: -2, most: 2, step: 0.1 },
  presence_penalty: { first: 0, kind: "number", least: -2, most: 2, step: 0.1 },
  repetition_penalty: { first: 1, kind: "number", least: 0.5, most: 2, step: 0.05, extra: true },
  seed: { first: null, kind: "whole", least: 0, most: 4294967295, step: 1, optional: true },
};
export const FORMATS = ["text", "json_object", "json_schema"];
export const MOST_STOPS = 4;

export const PRESETS = {
  precise: { temperature: 0, top_p: 1, min_p: 0, top_k: 0, frequency_penalty: 0, presence_penalty: 0, repetition_penalty: 1 },
  balanced: { temperature: 0.8, top_p: 0.95, min_p: 0, top_k: 0, frequency_penalty: 0, presence_penalty: 0, repetition_penalty: 1 },
  creative: { temperature: 1.15, top_p: 1, min_p: 0.05, top_k: 0, frequency_penalty: 0, presence_penalty: 0.2, repetition_penalty: 1 },
};
export const PRESET_KEYS = Object.keys(PRESETS.precise);
export const SCHEMA = '{\n  "type": "object",\n  "properties": {\n    "name": {"type": "string"},\n    "year": {"type": "integer"}\n  },\n  "required": ["name", "year"],\n  "additionalProperties": false\n}';

export function firstSettings() {
  const values = Object.fromEntries(Object.entries(SETTINGS).map(([name, { first }]) => [name, first]));
  return { ...values, stop: [], format: "text", schema: SCHEMA };
}

/** Settings from anywhere (a link, a file, the browser's memory): what is not right is left out. */
export function readSettings(found) {
  const settings = firstSettings();
  if (typeof found !== "object" || found === null) return settings;
  for (const name of Object.keys(SETTINGS)) {
    const value = readValue(name, found[name]);
    if (value !== undefined) settings[name] = value;
  }
  if (Array.isArray(found.stop)) settings.stop = found.stop.filter((one) => typeof one === "string" && one).slice(0, MOST_STOPS);
  if (FORMATS.includes(found.format)) settings.format = found.format;
  if (typeof found.schema === "string" && found.schema.length < 20000) settings.schema = found.schema;
  return settings;
}

/** A value if it is one that the setting can have, else undefined. */
export function readValue(name, value) {
  const { kind, least, most, optional } = SETTINGS[name];
  if (value === null && optional) return null;
  if (typeof value !== "number" || !Number.isFinite(value) || value < least || value > most) return undefined;
  return kind === "whole" && !Number.isInteger(value) ? undefined : value;
}

/** The name of the preset that settings are, of the built-in ones and ``own``; null for none. */
export function presetOf(settings, own = {}) {
  const all = Object.entries({ ...PRESETS, ...own });
  const found = all.find(([, preset]) => PRESET_KEYS.every((key) => (preset[key] ?? SETTINGS[key].first) === settings[key]));
  return found ? found[0] : null;
}

/** What both kinds of request share. Settings that change nothing are left out, so that what is sent can be read. */
function sampling(settings) {
  const body = { temperature: settings.temperature, top_p: settings.top_p };
  if (settings.top_p === 1) delete body.top_p;
  for (const name of ["min_p", "top_k", "frequency_penalty", "presence_penalty"]) if (settings[name]) body[name] = settings[name];
  if (settings.repetition_penalty !== 1) body.repetition_penalty = settings.repetition_penalty;
  if (settings.stop.length) body.stop = settings.stop;
  if (settings.seed !== null) body.seed = settings.seed;
  if (settings.n > 1 && settings.temperature > 0) body.n = settings.n;
  return body;
}

/**
 * What ``response_format`` asks for; nothing for plain text.
 *
 * Throws a SyntaxError when the schema is not JSON.
 */
function format(settings) {
  if (settings.format === "json_object") return { response_format: { type: "json_object" } };
  if (settings.format !== "json_schema") return {};
  return { response_format: { type: "json_schema", json_schema: { name: "answer", strict: true, schema: JSON.parse(settings.schema) } } };
}

export function completionRequest(model, prompt, settings) {
  return {
    model, prompt, max_tokens: settings.max_tokens, ...sampling(settings), logprobs: 5, stream: true, stream_options: { include_usage: true },
  };
}

/** A request that gives the probabilities of a text that is there already, and writes nothing. */
export function scoringRequest(model, prompt) {
  return { model, prompt, max_tokens: 0, echo: true, logprobs: 5 };
}

export function chatRequest(model, messages, settings) {
  return {
    model, messages, max_completion_tokens: settings.max_tokens, ...sampling(settings), ...format(settings),
    logprobs: true, top_logprobs: 5, stream: true, stream_options: { include_usage: true },
  };
}

export function randomSeed() {
  return Math.floor(Math.random() * 2 ** 31);
}
