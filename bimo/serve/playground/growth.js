// The tree of texts behind Complete: every text that was ever on the page, with what they share stored once.
//
// A tree is a plain value that no function changes: each gives a new one, so that undoing is keeping the old.
//   tree {nodes: {id: node}, next: id}        node {id, parent, children: [id], by: "you" | "model", parts, end}
//   part {text, logprob?, top?, pieces?}      a token and the likeliest others; one without logprob was not scored
// The root is empty. The text of a node is all that stands on the way from the root to it.

export const ROOT = 0;

export function emptyTree() {
  return { nodes: { [ROOT]: { id: ROOT, parent: null, children: [], by: "you", parts: [], end: null } }, next: 1 };
}

export function nodeText(node) {
  return node.parts.map((part) => part.text).join("");
}

export function pathTo(tree, id) {
  const path = [];
  for (let at = id; at !== null; at = tree.nodes[at].parent) path.unshift(tree.nodes[at]);
  return path;
}

export function textOf(tree, id) {
  return pathTo(tree, id).map(nodeText).join("");
}

/** The parts of a text with their places in it: {start, end, by, part, node}. */
export function partsOf(tree, id) {
  const parts = [];
  let start = 0;
  for (const node of pathTo(tree, id)) {
    for (const part of node.parts) {
      parts.push({ start, end: start + part.text.length, by: node.by, part, node: node.id });
      start += part.text.length;
    }
  }
  return parts;
}

function replace(tree, ...nodes) {
  return { ...tree, nodes: { ...tree.nodes, ...Object.fromEntries(nodes.map((node) => [node.id, node])) } };
}

/** A tree with one more node, and its id. */
export function addChild(tree, parent, by, parts) {
  const id = tree.next;
  const above = tree.nodes[parent];
  const grown = replace(
    tree,
    { ...above, children: [...above.children, id] },
    { id, parent, children: [], by, parts, end: null },
  );
  return [{ ...grown, next: id + 1 }, id];
}

export function append(tree, id, parts) {
  const node = tree.nodes[id];
  return replace(tree, { ...node, parts: [...node.parts, ...parts] });
}

/** Say why a node ended: "stop", "length" or "stopped". */
export function finish(tree, id, end) {
  return replace(tree, { ...tree.nodes[id], end });
}

/** A tree without a node and all that grew from it. */
export function remove(tree, id) {
  const { parent } = tree.nodes[id];
  const nodes = { ...tree.nodes };
  const gone = [id];
  for (const one of gone) {
    gone.push(...nodes[one].children);
    delete nodes[one];
  }
  nodes[parent] = { ...nodes[parent], children: nodes[parent].children.filter((child) => child !== id) };
  return { ...tree, nodes };
}

function cut(parts, offset) {
  const before = [], after = [];
  let start = 0;
  for (const part of parts) {
    const end = start + part.text.length;
    if (end <= offset) before.push(part);
    else if (start >= offset) after.push(part);
    else {
      before.push({ text: part.text.slice(0, offset - start) }); // half a token has no probability
      after.push({ text: part.text.slice(offset - start) });
    }
    start = end;
  }
  return [before, after];
}

/** A tree that has a node whose text is the first ``offset`` characters of the text of ``id``, and that node's id. */
export function splitAt(tree, id, offset) {
  let start = 0;
  for (const node of pathTo(tree, id)) {
    const length = nodeText(node).length;
    if (start + length === offset) return [tree, node.id];
    if (start + length > offset) {
      const [before, after] = cut(node.parts, offset - start);
      const rest = { ...node, id: tree.next, parent: node.id, parts: after };
      const kept = { ...node, parts: before, children: [rest.id], end: null };
      const moved = node.children.map((child) => ({ ...tree.nodes[child], parent: rest.id }));
      return [{ ...replace(tree, kept, rest, ...moved), next: tree.next + 1 }, node.id];
    }
    start += length;
  }
  throw new RangeError(`no character ${offset} in this text`);
}

/** How many characters two texts share at their beginning; never half of a surrogate pair. */
export function shared(one, other) {
  const most = Math.min(one.length, other.length);
  let count = 0;
  while (count < most && one[count] === other[count]) count++;
  return count > 0 && count < Math.max(one.length, other.length) && isHigh(one.charCodeAt(count - 1)) ? count - 1 : count;
}

function isHigh(code) {
  return code >= 0xd800 && code <= 0xdbff;
}

/**
 * The tree after the text of ``id`` was edited by hand to ``text``, and the node that has it.
 *
 * What the model wrote is never lost: an edit inside it is a branch. A draft of one's own, from which nothing grew,
 * is changed where it stands.
 */
export function graft(tree, id, text) {
  const old = textOf(tree, id);
  if (old === text) return [tree, id];
  let keep = shared(old, text);
  let at = id, start = old.length;
  while (at !== ROOT && tree.nodes[at].by === "you" && !tree.nodes[at].children.length) {
    const draft = tree.nodes[at];
    start -= nodeText(draft).length;
    at = draft.parent;
    tree = remove(tree, draft.id);
    keep = Math.min(keep, start);
  }
  [tree, at] = splitAt(tree, at, keep);
  return keep === text.length ? [tree, at] : addChild(tree, at, "you", [{ text: text.slice(keep) }]);
}

/** The tree with another token at ``offset`` of the text of ``id``, as the beginning of a branch; and that branch. */
export function branchAt(tree, id, offset, part) {
  const [split, at] = splitAt(tree, id, offset);
  const same = split.nodes[at].children.find((child) => {
    const [first, second] = split.nodes[child].parts;
    return first && first.text === part.text && !second;
  });
  return same === undefined ? addChild(split, at, "model", part.text ? [part] : []) : [split, same];
}

/** The node beside ``id`` on the nearest level where the text branches: ``step`` 1 is the next, -1 the one before. */
export function beside(tree, id, step) {
  for (let at = id; at !== ROOT; at = tree.nodes[at].parent) {
    const { children } = tree.nodes[tree.nodes[at].parent];
    if (children.length > 1) {
      return deepest(tree, children[(children.indexOf(at) + step + children.length) % children.length]);
    }
  }
  return id;
}

/** The newest leaf below a node. */
export function deepest(tree, id) {
  let at = id;
  while (tree.nodes[at].children.length) at = tree.nodes[at].children[tree.nodes[at].children.length - 1];
  return at;
}

/** The outline: rows {id, depth, text, by, here} in reading order; what has one child goes on at the same depth. */
export function outline(tree, current) {
  const here = new Set(pathTo(tree, current).map((node) => node.id));
  const rows = [];
  const walk = (id, depth) => {
    const node = tree.nodes[id];
    if (id !== ROOT) rows.push({ id, depth, text: nodeText(node), by: node.by, end: node.end, here: here.has(id) });
    const deeper = node.children.length > 1 && id !== ROOT ? depth + 1 : depth;
    for (const child of node.children) walk(child, deeper);
  };
  walk(ROOT, 0);
  return rows;
}
