// The tree of turns behind Chat. Plain values, as in growth.js: a turn edited or asked for again stands beside the old.
//   talk {turns: {id: turn}, next: id, chosen: {id: child}, system: text}
//   turn {id, parent, role: "user" | "assistant", text, children: [id], parts?, meta?}

export const TOP = 0;
export const FORMAT = "bimo.chat.v1";

export function emptyTalk(system = "") {
  return { turns: { [TOP]: { id: TOP, parent: null, role: "system", text: "", children: [] } }, next: 1, chosen: {}, system };
}

/** The turns that are shown, first to last. */
export function shown(talk) {
  const turns = [];
  for (let id = talk.chosen[TOP]; id !== undefined; id = talk.chosen[id]) turns.push(talk.turns[id]);
  return turns;
}

export function addTurn(talk, parent, role, text) {
  const id = talk.next;
  const above = talk.turns[parent];
  const turns = { ...talk.turns, [parent]: { ...above, children: [...above.children, id] }, [id]: { id, parent, role, text, children: [] } };
  return [{ ...talk, turns, next: id + 1, chosen: { ...talk.chosen, [parent]: id } }, id];
}

export function changeTurn(talk, id, change) {
  return { ...talk, turns: { ...talk.turns, [id]: { ...talk.turns[id], ...change } } };
}

/** Where a turn stands among those that could stand in its place: [index, count]. */
export function placeOf(talk, id) {
  const { children } = talk.turns[talk.turns[id].parent];
  return [children.indexOf(id), children.length];
}

export function choose(talk, id) {
  return { ...talk, chosen: { ...talk.chosen, [talk.turns[id].parent]: id } };
}

export function chooseBeside(talk, id, step) {
  const { children } = talk.turns[talk.turns[id].parent];
  const place = children.indexOf(id) + step;
  return place < 0 || place >= children.length ? talk : choose(talk, children[place]);
}

export function removeTurn(talk, id) {
  const { parent } = talk.turns[id];
  const turns = { ...talk.turns }, chosen = { ...talk.chosen };
  const gone = [id];
  for (const one of gone) {
    gone.push(...turns[one].children);
    delete turns[one];
    delete chosen[one];
  }
  const children = turns[parent].children.filter((child) => child !== id);
  turns[parent] = { ...turns[parent], children };
  if (chosen[parent] === id) {
    if (children.length) chosen[parent] = children[children.length - 1];
    else delete chosen[parent];
  }
  return { ...talk, turns, chosen };
}

/** The messages of a request that answers the turn ``id``. */
export function messagesTo(talk, id) {
  const messages = [];
  for (let at = id; at !== TOP; at = talk.turns[at].parent) {
    messages.unshift({ role: talk.turns[at].role, content: talk.turns[at].text });
  }
  if (talk.system.trim()) messages.unshift({ role: "system", content: talk.system });
  return messages;
}

export function exported(talk) {
  const turns = Object.values(talk.turns).map(({ id, parent, role, text, children }) => ({ id, parent, role, text, children }));
  return { format: FORMAT, system: talk.system, turns, chosen: talk.chosen, messages: shown(talk).map(({ role, text }) => ({ role, content: text })) };
}

/**
 * A talk from an exported one, or from a list of messages as OpenAI has them.
 *
 * Throws a TypeError that says what is wrong.
 */
export function imported(found) {
  if (Array.isArray(found)) return fromMessages(found);
  if (!found || typeof found !== "object") throw new TypeError("not a conversation");
  if (found.format !== FORMAT || !Array.isArray(found.turns)) {
    if (Array.isArray(found.messages)) return fromMessages(found.messages);
    throw new TypeError(`format is not ${FORMAT}`);
  }
  const talk = emptyTalk(typeof found.system === "string" ? found.system : "");
  const given = new Map(found.turns.filter((turn) => turn && turn.id !== TOP).map((turn) => [turn.id, turn]));
  for (const turn of given.values()) {
    const right = Number.isSafeInteger(turn.id) && turn.id > TOP && typeof turn.text === "string";
    if (!right || !["user", "assistant"].includes(turn.role)) throw new TypeError("a turn has no number, role or text");
    if (turn.parent !== TOP && !(given.has(turn.parent) && turn.parent < turn.id)) throw new TypeError(`turn ${turn.id} follows none`);
  }
  for (const id of [...given.keys()].sort((a, b) => a - b)) {
    const { parent, role, text } = given.get(id);
    talk.turns[id] = { id, parent, role, text, children: [] };
    talk.turns[parent].children.push(id);
    talk.next = id + 1;
  }
  for (const turn of Object.values(talk.turns)) {
    if (!turn.children.length) continue;
    const wanted = found.chosen && found.chosen[turn.id];
    talk.chosen[turn.id] = turn.children.includes(wanted) ? wanted : turn.children[turn.children.length - 1];
  }
  return talk;
}

function fromMessages(messages) {
  let talk = emptyTalk();
  let at = TOP;
  for (const message of messages) {
    if (!message || typeof message.content !== "string") throw new TypeError("a message has no text");
    if (message.role === "system") talk = { ...talk, system: message.content };
    else if (["user", "assistant"].includes(message.role)) [talk, at] = addTurn(talk, at, message.role, message.content);
    else throw new TypeError(`a message has the role ${JSON.stringify(message.role)}`);
  }
  return talk;
}
