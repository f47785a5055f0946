// Markdown as models write it, to a tree of plain values; ``markdown_view.js`` makes elements of it. No HTML is read.
//   block {kind: "p" | "h" | "code" | "list" | "quote" | "rule" | "table", …}
//   inline: a string, or {kind: "strong" | "em" | "del" | "code" | "link", …}

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const DASHES = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const DEEPEST = 8; // lists and quotes inside each other

export function parse(text, depth = 0) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    const [block, next] = blockAt(lines, at, depth);
    if (block) blocks.push(block);
    at = next;
  }
  return blocks;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  if (!line.trim()) return [null, at + 1];
  const fence = FENCE.exec(line);
  if (fence) return fenced(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [{ kind: "h", level: heading[1].length, content: inline(heading[2]) }, at + 1];
  if (RULE.test(line)) return [{ kind: "rule" }, at + 1];
  if (depth < DEEPEST && QUOTE.test(line)) return quoted(lines, at, depth);
  if (depth < DEEPEST && ITEM.test(line)) return listed(lines, at, depth);
  if (line.includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && DASHES.test(lines[at + 1])) return table(lines, at);
  return paragraph(lines, at);
}

function fenced(lines, at, [, mark, language]) {
  const close = new RegExp(`^ {0,3}${mark[0]}{${mark.length},}\\s*$`);
  let end = at + 1;
  while (end < lines.length && !close.test(lines[end])) end++;
  return [{ kind: "code", language, text: lines.slice(at + 1, end).join("\n") }, end + 1];
}

function quoted(lines, at, depth) {
  const inside = [];
  let end = at;
  for (; end < lines.length && QUOTE.test(lines[end]); end++) inside.push(QUOTE.exec(lines[end])[1]);
  return [{ kind: "quote", blocks: parse(inside.join("\n"), depth + 1) }, end];
}

function listed(lines, at, depth) {
  const [, indent, first] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(first);
  const items = [];
  let end = at, inside = null;
  while (end < lines.length) {
    const line = lines[end];
    const item = ITEM.exec(line);
    const leading = /^ */.exec(line)[0].length;
    if (item && item[1].length <= indent.length + 1 && !RULE.test(line)) {
      if (/\d/.test(item[2]) !== ordered || item[1].length + 1 < indent.length) break;
      inside = [item[3]];
      items.push(inside);
    } else if (!line.trim()) {
      if (end + 1 >= lines.length || !(/^\s+\S/.test(lines[end + 1]) || ITEM.test(lines[end + 1]))) break;
      inside.push("");
    } else if (leading > indent.length) {
      inside.push(line.slice(Math.min(leading, indent.length + first.length + 1)));
    } else if (inside[inside.length - 1] === "" || FENCE.test(line) || HEADING.test(line) || RULE.test(line)) {
      break;
    } else {
      inside.push(line);
    }
    end++;
  }
  const start = ordered ? parseInt(first, 10) : null;
  return [{ kind: "list", start, items: items.map((item) => parse(item.join("\n"), depth + 1)) }, end];
}

function cells(line) {
  return line.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/).map((cell) => inline(cell.trim().replace(/\\\|/g, "|")));
}

function table(lines, at) {
  const head = cells(lines[at]);
  const rows = [];
  let end = at + 2;
  for (; end < lines.length && lines[end].includes("|") && lines[end].trim(); end++) rows.push(cells(lines[end]).slice(0, head.length));
  return [{ kind: "table", head, rows }, end];
}

function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && ![FENCE, HEADING, RULE, QUOTE, ITEM].some((rule) => rule.test(lines[end]))) end++;
  return [{ kind: "p", content: inline(lines.slice(at, end).map((line) => line.trim()).join("\n")) }, end];
}

// In the order in which they are tried at each place; each holds no other of its own kind, so that none is slow.
const SPANS = [
  [/^\\([!-/:-@[-`{-~])/, (found) => found[1]],
  [/^(`+)([^`](?:[^]*?[^`])?)\1(?!`)/, (found) => ({ kind: "code", text: found[2].replace(/^ (.*) $/s, "$1") })],
  [/^\*\*(?=\S)([^]{0,2000}?\S)\*\*/, (found, depth) => ({ kind: "strong", content: inline(found[1], depth + 1) })],
  [/^__(?=\S)([^]{0,2000}?\S)__(?!\w)/, (found, depth) => ({ kind: "strong", content: inline(found[1], depth + 1) })],
  [/^\*(?=[^\s*])([^*]{0,2000}[^\s*])\*(?!\*)/, (found, depth) => ({ kind: "em", content: inline(found[1], depth + 1) })],
  [/^_(?=[^\s_])([^_]{0,2000}[^\s_])_(?!\w)/, (found, depth) => ({ kind: "em", content: inline(found[1], depth + 1) })],
  [/^~~(?=\S)([^~]{1,2000})~~/, (found, depth) => ({ kind: "del", content: inline(found[1], depth + 1) })],
  [/^\[([^\][]{1,500})\]\(([^()\s]{1,2000})(?:\s+"[^"]{0,200}")?\)/, (found, depth) => link(found, depth)],
];

function link([whole, text, address], depth) {
  return /^https?:\/\//i.test(address) ? { kind: "link", address, content: inline(text, depth + 1) } : whole;
}

export function inline(text, depth = 0) {
  const found = [];
  let plain = "";
  const flush = () => {
    if (plain) found.push(plain);
    plain = "";
  };
  for (let at = 0; at < text.length; ) {
    const rest = depth < DEEPEST && "\\`*_~[".includes(text[at]) ? text.slice(at, at + 4100) : "";
    const [span, length] = rest ? spanAt(rest, text[at - 1], depth) : [null, 0];
    if (typeof span === "string") plain += span;
    else if (span) {
      flush();
      found.push(span);
    } else plain += text[at];
    at += length || 1;
  }
  flush();
  return found;
}

function spanAt(rest, before, depth) {
  if (rest[0] === "_" && before && /\w/.test(before)) return [null, 0]; // snake_case is no emphasis
  for (const [pattern, make] of SPANS) {
    const found = pattern.exec(rest);
    if (found) return [make(found, depth), found[0].length];
  }
  const ticks = /^`+/.exec(rest);
  return ticks ? [ticks[0], ticks[0].length] : [null, 0];
}
