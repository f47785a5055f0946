// The live page: asks for what is new, keeps the columns, and draws them as SVG.

const EVERY = 1500; // milliseconds between two questions
const AT_REST = 10000; // the same, when the training has ended or the page is hidden
const MOST_POINTS = 4000; // of a curve; then all is asked for again, and comes thinned
const SMOOTH = 25; // a curve is smoothed over one part in so many of its points
const SVG = "http://www.w3.org/2000/svg";

const WORDS = {
  en: {
    preparing: "preparing", running: "training", finished: "finished", interrupted: "interrupted",
    lost: "no connection: the training’s terminal knows more", quiet: "no news for {0}",
    done: "step {0} of {1}", left: "{0} left", validation: "validation", training: "training", held: "held-out text",
    byte: "Bits per byte", label: "Bits per label",
    unit: {byte: "bits per byte of validation text", label: "bits per label of validation rows"},
    unitTrain: {byte: "bits per byte of training text", label: "bits per label of training rows"},
    unitTest: {byte: "bits per byte of held-out text", label: "bits per label of held-out rows"},
    at: "at step {0}; lowest {1} at step {2}", best: "at step {0}, the lowest so far", waiting: "no validation yet",
    below: "{0}% below {1}", above: "{0}% above {1}", nats: "nats a token", tokens: "tokens",
    peak: "{0}% of the matmul peak", read: "the text read {0} times", step: "Step", stepNo: "Step {0}", time: "Time", clip: "clipped above",
    turned: "lowest", wall: "about {0} to go", samples: "bits a byte",
    norm: "Norm", loss: "Loss", smooth: "Smoothed", speed: "Tokens/s", use: "Of peak", as: "as planned", more: "{0}% more", less: "{0}% less",
  },
  zh: {
    preparing: "准备中", running: "训练中", finished: "已完成", interrupted: "已中断",
    lost: "连接已断开：请查看训练所在的终端", quiet: "{0}没有新数据",
    done: "第 {0} 步，共 {1} 步", left: "剩余 {0}", validation: "验证", training: "训练", held: "留出文本",
    byte: "每字节比特数", label: "每标签比特数",
    unit: {byte: "验证文本的每字节比特数", label: "验证数据的每标签比特数"},
    unitTrain: {byte: "训练文本的每字节比特数", label: "训练数据的每标签比特数"},
    unitTest: {byte: "留出文本的每字节比特数", label: "留出数据的每标签比特数"},
    at: "第 {0} 步；最低 {1}，在第 {2} 步", best: "第 {0} 步，目前最低", waiting: "尚未验证",
    below: "比 {1} 低 {0}%", above: "比 {1} 高 {0}%", nats: "每词元奈特", tokens: "词元",
    peak: "矩阵乘法峰值的 {0}%", read: "文本读了 {0} 遍", step: "步", stepNo: "第 {0} 步", time: "时间", clip: "裁剪阈值",
    turned: "最低", wall: "大约还需 {0}", samples: "比特每字节",
    norm: "范数", loss: "损失", smooth: "平滑", speed: "词元/秒", use: "占峰值", as: "与计划一致", more: "多 {0}%", less: "少 {0}%",
  },
};

const $ = (id) => document.getElementById(id);
const data = { generation: -1, points: {}, state: null };
let language = $("language-zh").checked ? "zh" : "en";
let lost = false;

function say(key, ...values) {
  return WORDS[language][key].replace(/\{(\d)\}/g, (_, place) => values[place]);
}
function spoken(words) {
  if (Array.isArray(words)) return words[language === "zh" ? 1 : 0]; // a pair (English, Chinese)
  return words;
}
function put(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}
const whole = (value) => Math.round(value).toLocaleString("en");
function short(value) {
  for (const [factor, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= factor) return (value / factor).toPrecision(3) + unit;
  }
  return whole(value);
}
function duration(seconds) {
  const [h, m, s] = language === "zh" ? [" 小时", " 分", " 秒"] : [" h", " min", " s"];
  const all = Math.round(seconds);
  if (all >= 3600) return Math.floor(all / 3600) + h + " " + (Math.floor(all / 60) % 60) + m;
  if (all >= 60) return Math.floor(all / 60) + m + " " + (all % 60) + s;
  return all + s;
}
function clock(seconds) {
  const all = Math.round(seconds), h = Math.floor(all / 3600), m = Math.floor(all / 60) % 60;
  return (h ? h + ":" + String(m).padStart(2, "0") : m) + ":" + String(all % 60).padStart(2, "0");
}
function last(values) {
  for (let i = (values || []).length - 1; i >= 0; i--) if (values[i] !== null) return values[i];
  return null;
}

// ---- asking

async function ask() {
  const steps = data.points.step || [];
  const full = steps.length > MOST_POINTS;
  const after = steps.length && !full ? steps[steps.length - 1] : -1;
  try {
    const answer = await fetch(`/state?after=${after}&generation=${full ? -1 : data.generation}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    take(await answer.json());
    lost = false;
  } catch {
    lost = true;
  }
  show();
  const rest = document.hidden || lost || (data.state && ["finished", "interrupted"].includes(data.state.status));
  setTimeout(ask, rest ? AT_REST : EVERY);
}

function take(state) {
  if (state.again) data.points = {};
  for (const [name, values] of Object.entries(state.points)) {
    data.points[name] = state.again ? values : (data.points[name] || []).concat(values);
  }
  data.generation = state.generation;
  data.state = state;
}

// ---- numbers and sentences

function show() {
  const state = data.state;
  if (!state) return;
  const points = data.points, steps = points.step || [], step = last(steps) || 0;
  put("name", state.name);
  document.title = (state.steps && state.status === "running" ? Math.floor((100 * step) / state.steps) + "% · " : "") + state.name + " · bimo";
  const silent = state.status === "running" && state.quiet !== null && state.quiet > 120;
  const over = ["finished", "interrupted"].includes(state.status);
  const status = $("status");
  status.className = "status " + (lost && !over ? "open" : silent ? "calm" : state.status === "interrupted" ? "open" : state.status === "running" && steps.length ? "running" : state.status === "finished" ? "" : "calm");
  put("status", lost && !over ? say("lost") : silent ? say("quiet", duration(state.quiet)) : say(steps.length && state.status in WORDS.en ? state.status : "preparing"));
  $("report").hidden = !state.report || lost;
  $("main").hidden = !steps.length;
  $("waiting").hidden = Boolean(steps.length);
  if (!steps.length) return;

  const share = state.steps ? Math.min(100, (100 * step) / state.steps) : 0;
  $("progress").firstElementChild.style.width = share + "%";
  $("progress").setAttribute("aria-valuenow", Math.round(share));
  put("done", state.steps ? say("done", whole(step), whole(state.steps)) : say("stepNo", whole(step)));
  put("left", state.status === "running" && state.seconds_left !== null ? say("left", duration(state.seconds_left)) : "");

  headline(state, points);
  put("loss", last(smoothed(points.loss)).toFixed(3));
  put("loss-about", say("nats"));
  put("speed", last(points.speed) === null ? "–" : whole(last(points.speed)));
  put("use", last(points.use) === null ? "" : say("peak", Math.round(100 * last(points.use))));
  put("tokens", short(last(points.tokens) || 0));
  put("repeats", (state.repeats === null ? say("tokens") : say("tokens") + (language === "zh" ? "，" : "; ") + say("read", state.repeats.toFixed(state.repeats < 10 ? 2 : 0))));
  put("time", duration(last(points.seconds) || 0));
  put("time-left", state.status === "running" && state.seconds_left ? say("wall", duration(state.seconds_left)) : "");
  coach(state.coach);
  list($("samples"), state.samples.slice().reverse(), sample);
  $("samples-section").hidden = !state.samples.length;
  list($("plan"), state.plan, planned);
  $("plan-section").hidden = !state.plan.length;
  list($("events"), state.events, (event) => element("li", "", spoken(event)));
  $("no-events").hidden = Boolean(state.events.length);
  draw();
}

function headline(state, points) {
  put("bits-of", say(state.unit));
  const validations = state.validations;
  if (state.held_out !== null) {
    put("bits", state.held_out.toFixed(3));
    put("unit", WORDS[language].unitTest[state.unit]);
  } else if (validations.length) {
    put("bits", validations[validations.length - 1][1].toFixed(3));
    put("unit", WORDS[language].unit[state.unit]);
  } else {
    put("bits", (last(smoothed(points.bits)) || 0).toFixed(3));
    put("unit", WORDS[language].unitTrain[state.unit]);
  }
  const ngram = state.references.length ? state.references[state.references.length - 1] : null;
  if (state.held_out !== null && ngram) {
    const change = 100 * (1 - state.held_out / ngram[1]);
    put("compared", say(change >= 0 ? "below" : "above", Math.abs(change).toFixed(1), spoken(ngram[0])));
  } else if (validations.length) {
    const [step] = validations[validations.length - 1];
    const best = validations.reduce((low, one) => (one[1] < low[1] ? one : low));
    put("compared", best[0] === step ? say("best", whole(step)) : say("at", whole(step), best[1].toFixed(3), whole(best[0])));
  } else {
    put("compared", say("waiting"));
  }
}

function coach(advice) {
  const card = $("coach");
  card.hidden = !advice;
  if (!advice) return;
  card.className = "card coach " + advice.verdict;
  put("says", spoken(advice.headline));
  put("action", spoken(advice.action));
  put("gap", spoken(advice.gap));
  list($("evidence"), advice.evidence, (one) => element("li", "", spoken(one)));
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function list(parent, items, make) {
  const mark = language + JSON.stringify(items);
  if (parent.dataset.mark === mark) return; // what has not changed stays selected, and in its place
  parent.dataset.mark = mark;
  parent.replaceChildren(...items.map(make));
}

function sample(one) {
  const item = element("li"), when = element("div", "when"), text = element("p", "text");
  when.append(element("b", "", say("stepNo", whole(one.step))));
  if (one.bits !== null) when.append(one.bits.toFixed(3) + " " + say("samples"));
  text.append(element("i", "", one.prompt), one.text.replace(/\n\s*\n/g, "\n").trimEnd());
  item.append(when, text);
  return item;
}

function planned(row) {
  const line = element("tr"), actual = element("td", "n", spoken(row.actual));
  if (row.off !== null) {
    const share = Math.round(100 * Math.abs(row.off));
    actual.append(element("span", "off", share === 0 ? say("as") : say(row.off > 0 ? "more" : "less", share)));
  }
  line.append(element("td", "", spoken(row.name)), element("td", "n", spoken(row.planned)), actual);
  return line;
}

// ---- curves

function smoothed(values) {
  const reach = Math.floor(values.length / SMOOTH / 2);
  const total = [0], known = [0];
  values.forEach((value, i) => {
    total.push(total[i] + (value === null ? 0 : value));
    known.push(known[i] + (value === null ? 0 : 1));
  });
  return values.map((_, place) => {
    const side = Math.min(reach, place), begin = place - side, end = Math.min(values.length, place + reach + 1);
    return known[end] > known[begin] ? (total[end] - total[begin]) / (known[end] - known[begin]) : null;
  });
}

function ticks(low, high, most, integer) {
  const raw = (high - low) / Math.max(1, most), power = 10 ** Math.floor(Math.log10(raw));
  let spacing = (integer && power >= 10 ? [1, 2, 2.5, 5, 10] : [1, 2, 5, 10]).map((factor) => factor * power).find((one) => one >= raw * 0.999);
  if (integer) spacing = Math.max(1, spacing);
  const found = [];
  for (let i = Math.ceil(low / spacing - 1e-9); i * spacing <= high * (1 + 1e-12) + 1e-12; i++) found.push(i * spacing + 0); // + 0: no minus zero
  return { values: found, digits: Math.max(0, -Math.floor(Math.log10(spacing) + 1e-9)) };
}

function make(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Heights of labels, moved apart so that none covers another. */
function apart(labels, low, high, room) {
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((label, i) => { label.y = Math.max(label.y, i ? labels[i - 1].y + room : low); });
  for (let i = labels.length - 1; i >= 0; i--) {
    labels[i].y = Math.min(labels[i].y, i === labels.length - 1 ? high : labels[i + 1].y - room);
  }
  return labels;
}

class Graph {
  /** host: element id; height: pixels; describe: state -> {lines, dots, across, low, high, right, tip}. */
  constructor(id, height, describe) {
    this.host = $(id);
    this.height = height;
    this.describe = describe;
    this.tip = element("div", "tip");
    this.tip.hidden = true;
    this.svg = make("svg", { height, role: "img" });
    this.host.append(this.svg, this.tip);
    for (const event of ["pointermove", "pointerdown"]) this.host.addEventListener(event, (e) => this.point(e));
    this.host.addEventListener("pointerleave", () => this.leave());
    new ResizeObserver(() => { if (this.host.clientWidth !== this.width) this.draw(); }).observe(this.host);
  }

  draw() {
    const steps = data.points.step || [], width = this.host.clientWidth;
    if (!data.state || steps.length < 2 || !width) return;
    const about = this.describe(data.state, data.points);
    if (!about || !(about.high > about.low)) return;
    this.width = width;
    const left = about.left || 40, right = about.right || (about.names ? 74 : 14), top = 10, bottom = 40;
    const now = steps[steps.length - 1], planned = data.state.status === "running" ? data.state.steps || now : now;
    const end = Math.max(2, Math.min(Math.max(planned, now), now / 0.35));
    const x = (step) => left + (step / end) * (width - left - right);
    const y = (value) => top + (1 - (value - about.low) / (about.high - about.low)) * (this.height - top - bottom);
    Object.assign(this, { about, x, y, left, right, top, bottom, end });
    const parts = [...this.mesh(steps), ...this.curves(steps)];
    this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("aria-label", this.host.previousElementSibling.textContent);
    this.svg.replaceChildren(...parts);
  }

  mesh(steps) {
    const { about, x, y, left, right, top, bottom, width, height } = this, parts = [];
    const base = height - bottom;
    const marks = ticks(about.low, about.high, height > 250 ? 8 : 5);
    for (const value of marks.values) {
      const at = Math.round(y(value)) + 0.5;
      if (at > base - 3 && value !== about.low) continue;
      parts.push(make("path", { class: "rule", d: `M${left} ${at}H${width - right}` }));
      parts.push(make("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, about.format ? about.format(value, marks.digits) : value.toFixed(marks.digits)));
      if (about.second) parts.push(make("text", { x: width - right + 8, y: at + 4 }, about.second(value)));
    }
    parts.push(make("path", { class: "base", d: `M${left} ${base + 0.5}H${width - right}` }));
    const room = Math.max(2, Math.floor((width - left - right) / 58));
    for (const step of ticks(0, this.end, Math.min(8, room), true).values) {
      const anchor = step === 0 ? "start" : "middle";
      parts.push(make("text", { x: step === 0 ? left : x(step), y: base + 18, "text-anchor": anchor }, whole(step)));
      const i = steps.findIndex((one) => one >= step);
      if (step > 0 && i >= 0) parts.push(make("text", { class: "sub", x: x(step), y: base + 32, "text-anchor": "middle" }, clock(data.points.seconds[i] || 0)));
    }
    return parts;
  }

  curves(steps) {
    const { about, x, y, left, right, top, bottom, width, height } = this, parts = [], labels = [];
    const clipId = "clip-" + this.host.id;
    const clip = make("clipPath", { id: clipId });
    clip.append(make("rect", { x: left, y: top - 4, width: width - left - right, height: height - top - bottom + 4 }));
    const inside = make("g", { "clip-path": `url(#${clipId})` });
    for (const one of about.across || []) {
      if (one.value < about.low || one.value > about.high) continue;
      inside.append(make("path", { class: one.kind, d: `M${left} ${y(one.value)}H${width - right}` }));
      parts.push(make("text", { class: `label ${one.kind}-label`, x: one.end ? width - right - 4 : left + 6, y: y(one.value) - 6, "text-anchor": one.end ? "end" : "start" }, one.name));
    }
    if (about.turned) {
      inside.append(make("path", { class: "turn", d: `M${x(about.turned)} ${top}V${height - bottom}` }));
      const side = x(about.turned) > width * 0.6 ? ["end", -6] : ["start", 6];
      parts.push(make("text", { class: "label turn-label", x: x(about.turned) + side[1], y: top + 8, "text-anchor": side[0] }, `${say("turned")} · ${whole(about.turned)}`));
    }
    for (const line of about.lines) {
      const at = line.steps || steps;
      let path = "", drawing = false;
      line.values.forEach((value, i) => {
        if (value !== null) path += (drawing ? "L" : "M") + x(at[i]).toFixed(1) + " " + Math.max(-1e4, Math.min(1e4, y(value))).toFixed(1);
        drawing = value !== null;
      });
      inside.append(make("path", { class: line.kind, d: path }));
      const value = last(line.values), step = at[at.length - 1];
      if (line.name && value !== null && step !== undefined) {
        labels.push({ x: x(step) + 9, y: Math.max(top, Math.min(height - bottom, y(value))) + 4, name: line.name, kind: line.tone + "-label" });
      }
    }
    const dots = make("g", {});
    for (const [step, value] of about.dots || []) {
      if (value >= about.low && value <= about.high) dots.append(make("circle", { class: "seal-dot", cx: x(step), cy: y(value), r: width < 500 || about.dots.length > 60 ? 3 : 4 }));
    }
    apart(labels, top + 4, height - bottom, 16);
    const texts = labels.map((label) => make("text", { class: "label " + label.kind, x: label.x, y: label.y }, label.name));
    this.here = make("path", { class: "here", d: "" });
    return [clip, inside, dots, this.here, ...parts, ...texts];
  }

  point(event) {
    if (!this.about) return;
    const steps = data.points.step, box = this.host.getBoundingClientRect();
    const wanted = ((event.clientX - box.left - this.left) / (this.width - this.left - this.right)) * this.end;
    let i = steps.findIndex((step) => step >= wanted);
    if (i < 0) i = steps.length - 1;
    if (i > 0 && wanted - steps[i - 1] < steps[i] - wanted) i--;
    const at = this.x(steps[i]);
    this.here.setAttribute("d", `M${at} ${this.top}V${this.height - this.bottom}`);
    const rows = [[say("step"), whole(steps[i])], [say("time"), clock(data.points.seconds[i] || 0)], ...this.about.tip(i)];
    const table = element("dl");
    for (const [name, value] of rows) table.append(element("dt", "", name), element("dd", "", value));
    this.tip.replaceChildren(table);
    this.tip.hidden = false;
    const beside = at > this.width / 2 ? at - this.tip.offsetWidth - 12 : at + 12;
    this.tip.style.left = Math.min(this.width - this.tip.offsetWidth, Math.max(0, beside)) + "px";
  }

  leave() {
    this.tip.hidden = true;
    if (this.here) this.here.setAttribute("d", "");
  }
}

function range(values, room = 0.06) {
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  if (!known.length) return [0, 1];
  let low = Infinity, high = -Infinity;
  for (const value of known) { low = Math.min(low, value); high = Math.max(high, value); }
  const more = Math.max(room * (high - low), 1e-3 * Math.abs(high)) || 1;
  return [Math.max(0, low - more), high + more];
}

/** From 0 to what all but a few spikes stay below. */
function above(values, least) {
  const known = values.filter((value) => value !== null).sort((a, b) => a - b);
  return 1.12 * Math.max(least, known.length ? known[Math.floor(0.99 * (known.length - 1))] : 0) || 1;
}

const settled = (values) => values.slice(Math.floor(values.length / 25));
const three = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));

function bitsGraph(state, points) {
  const smooth = smoothed(points.bits), validations = state.validations;
  const measured = validations.map((one) => one[1]);
  const references = state.references.map(([name, value]) => ({ name: `${spoken(name)} ${value.toFixed(2)}`, value, kind: "reference" }));
  const strongest = references.slice(-1).map((one) => one.value);
  const [low, high] = range([...settled(smooth), ...measured, ...strongest, ...(state.held_out === null ? [] : [state.held_out])]);
  const across = references;
  if (state.held_out !== null) across.push({ name: `${say("held")} ${state.held_out.toFixed(3)}`, value: state.held_out, kind: "limit" });
  return {
    low, high, across, names: true, dots: validations, turned: state.coach ? state.coach.turned : null,
    lines: [
      { values: points.bits, kind: "faint" },
      { values: smooth, kind: "ink", tone: "ink", name: say("training") },
      { values: measured, steps: validations.map((one) => one[0]), kind: "seal-line", tone: "seal", name: say("validation") },
    ],
    tip: (i) => {
      const before = validations.filter((one) => one[0] <= points.step[i]);
      return [[say("training"), three(points.bits[i])], [say("smooth"), three(smooth[i])], [say("validation"), before.length ? three(before[before.length - 1][1]) : "–"]];
    },
  };
}

function lossGraph(state, points) {
  const smooth = smoothed(points.loss), [low, high] = range(settled(smooth));
  return {
    low, high, lines: [{ values: points.loss, kind: "faint" }, { values: smooth, kind: "ink thin" }],
    tip: (i) => [[say("loss"), three(points.loss[i])], [say("smooth"), three(smooth[i])]],
  };
}

function rateGraph(state, points) {
  const [matrices, others] = state.rates;
  const exact = (value) => (value === null ? "–" : String(Number(value.toPrecision(3))));
  return {
    low: 0, high: above([...points.rate, ...points.adamw], 0), names: true, left: 46,
    lines: [
      { values: points.rate, kind: "blue", tone: "blue", name: matrices },
      { values: points.adamw, kind: "ink thin", tone: "ink", name: others },
    ],
    tip: (i) => [[matrices, exact(points.rate[i])], [others, exact(points.adamw[i])]],
  };
}

function normGraph(state, points) {
  const across = state.clip ? [{ name: say("clip"), value: state.clip, kind: "limit", end: true }] : [];
  return {
    low: 0, high: above(points.norm, state.clip || 0), across, lines: [{ values: points.norm, kind: "ink thin" }],
    tip: (i) => [[say("norm"), three(points.norm[i])]],
  };
}

function speedGraph(state, points) {
  const known = points.speed.findIndex((value) => value !== null);
  if (known < 0) return null;
  const share = last(points.use) / last(points.speed); // of the peak, a token a second
  const high = 1.08 * Math.max(...points.speed.filter((value) => value !== null)); // medians already
  return {
    low: 0, high, left: 46, right: 46, format: (value) => (value >= 1000 ? value / 1000 + "k" : String(value)),
    second: (value) => (Number.isFinite(share) ? Math.round(100 * share * value) + "%" : ""),
    lines: [{ values: points.speed, kind: "blue" }],
    tip: (i) => [[say("speed"), points.speed[i] === null ? "–" : whole(points.speed[i])], [say("use"), points.use[i] === null ? "–" : Math.round(100 * points.use[i]) + "%"]],
  };
}

const graphs = [
  new Graph("graph-bits", 340, bitsGraph),
  new Graph("graph-loss", 210, lossGraph),
  new Graph("graph-rate", 210, rateGraph),
  new Graph("graph-norm", 210, normGraph),
  new Graph("graph-speed", 210, speedGraph),
];
function draw() {
  for (const graph of graphs) graph.draw();
}

for (const name of ["en", "zh"]) {
  $("language-" + name).addEventListener("change", () => {
    language = name;
    document.documentElement.lang = name === "zh" ? "zh-Hans" : "en";
    show();
  });
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) show(); });
ask();
