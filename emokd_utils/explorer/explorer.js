// The explorer. One module for the notebook's widget (the default export, for anywidget) and for the
// page (openPage). What comes from outside (names, answers, metadata) enters the document as text
// nodes and attribute values only, never as markup.
//
// What is shown is one text, the view, written like the query of a URL: "cell=a&label=fear" is what
// only A got right among the images labelled fear. A page keeps it behind the # of its address. Keys:
//
//   a, b               names of the two models
//   only               rows that a notebook chose, with commas between, in the order to show them
//   cell               both, a, b or neither: who is right       } these may be
//   label              a class                                   } repeated, as may
//   says_a, says_b     a predicted class, or (none)              } a column's value
//   conf_a, conf_b     LOW..HIGH, probability of the predicted class, 0 to 1
//   words              all of these words are in the VLM's answer or reason
//   gate               right or wrong
//   share              LOW..HIGH, the student's share in the gate's decision, 0 to 1
//   col.NAME           a metadata column: a value, LOW..HIGH, or words
//   sort, order        disagreement, conf_a, conf_b, id or given (as in `only`); up or down
//   open               id of the image that is open

const CELLS = ["both", "a", "b", "neither"];
const NONE = "(none)";
const Z = 1.959963984540054; // of a 95 % interval
const BINS = 24; // of a histogram
const BATCH = 60; // pictures that are added at once

// ------------------------------------------------------------------------------------------ numbers

/** Wilson's 95 % interval of a share, k of n. */
function wilson(k, n) {
  const p = k / n;
  const scale = 1 + (Z * Z) / n;
  const middle = (p + (Z * Z) / (2 * n)) / scale;
  const reach = (Z * Math.sqrt((p * (1 - p)) / n + (Z * Z) / (4 * n * n))) / scale;
  return [Math.max(0, middle - reach), Math.min(1, middle + reach)];
}

/** Jensen-Shannon divergence of two distributions in bits, 0 to 1 (doi 10.1109/18.61115). */
function jensenShannon(p, q) {
  let sum = 0;
  for (let k = 0; k < p.length; k++) {
    const middle = (p[k] + q[k]) / 2;
    if (p[k] > 0) sum += p[k] * Math.log2(p[k] / middle);
    if (q[k] > 0) sum += q[k] * Math.log2(q[k] / middle);
  }
  return Math.round(Math.min(1, Math.max(0, sum / 2)) * 1e6) / 1e6;
}

const count = (value) => value.toLocaleString("en-GB");
const fixed = (share, digits = 0) => (100 * share).toFixed(digits);
const percent = (share, digits = 0) => `${fixed(share, digits)}\u00a0%`;
const images = (n) => (n === 1 ? "1 image" : `${count(n)} images`);
const ofAll = (n, all) => (n === all ? images(n) : `${count(n)} of ${images(all)}`);
const short = (value) => String(Number(value.toPrecision(4)));
const verdict = (model, row) => (model.right[row] ? "right" : "wrong");

function floats(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

/** A cell that keeps its text in any spreadsheet and is a formula in none. */
function csvCell(value) {
  if (typeof value === "number") return String(value);
  const text = /^(\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|')/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// ------------------------------------------------------------------------------- what is chosen

/** For each kind of filter and a value of it, which rows pass. */
const PASSES = {
  set: (filter, chosen) => (row) => chosen.has(filter.codes[row]),
  range: (filter, [low, high]) => (row) => filter.values[row] >= low && filter.values[row] <= high,
  text: (filter, text) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return (row) => words.every((word) => filter.text(row).toLowerCase().includes(word));
  },
  only: (filter, rows) => {
    const inside = new Set(rows);
    return (row) => inside.has(row);
  },
};

/** A value of a filter as the texts of a view, and back; undefined for what cannot be read. */
const WRITE = {
  set: (filter, chosen) => [...chosen].sort((x, y) => x - y).map((k) => filter.options[k].name),
  range: (filter, ends) => [ends.join("..")],
  text: (filter, text) => [text],
  only: (filter, rows) => [rows.join(",")],
};
const READ = {
  set: (filter, names) => {
    const places = names.map((name) => filter.options.findIndex((option) => option.name === name));
    return new Set(places.filter((k) => k >= 0));
  },
  range: (filter, texts) => {
    const ends = texts.at(-1).split("..").map(Number);
    return ends.length === 2 && !ends.some(Number.isNaN) ? ends : undefined;
  },
  text: (filter, texts) => texts.at(-1),
  only: (filter, texts, n) => texts.at(-1).split(",").map(Number).filter((row) => row >= 0 && row < n),
};

/** The data, the two models that are compared, the filters, and the images that pass them. */
class Engine {
  constructor(data) {
    this.data = data;
    this.n = data.ids.length;
    this.rows = Array.from({ length: this.n }, (_, row) => row);
    this.classes = data.classes;
    this.models = data.models.map((model) => this.#model(model));
    this.gate = this.models[data.gate]; // undefined where there is none
    this.share = data.share && floats(data.share);
    this.missing = new Set(data.missing);
    const byId = [...this.rows].sort((x, y) => (data.ids[x] < data.ids[y] ? -1 : 1));
    this.rank = new Int32Array(this.n);
    byId.forEach((row, place) => (this.rank[row] = place));
    this.bits = new Uint32Array(this.n);
    this.active = new Map();
  }

  #model(model) {
    const size = this.classes.length;
    const all = floats(model.probabilities);
    const p = this.rows.map((row) => all.subarray(row * size, (row + 1) * size));
    const right = model.predicted.map((k, row) => Number(k === this.data.labels[row]));
    const names = model.predicted.map((k) => this.classes[k]?.name ?? "no label");
    return { ...model, p, right, names, confidence: p.map((row) => Math.max(...row)) };
  }

  /** Whose answers are searched and shown: A's, else B's, else the first there are. */
  get writer() {
    return [this.a, this.b, ...this.models].find((model) => model.answers);
  }

  /** What the writer answered for an image, with the reason. */
  said(row) {
    return `${this.writer?.answers[row] ?? ""}\n${this.data.reasons?.[row] ?? ""}`;
  }

  setModels(placeA, placeB) {
    const [a, b] = [this.models[placeA], this.models[placeB]];
    Object.assign(this, { placeA, placeB, a, b });
    this.disagreement = this.rows.map((row) => jensenShannon(a.p[row], b.p[row]));
    this.cell = this.rows.map((row) => 3 - 2 * a.right[row] - b.right[row]);
    this.cellNames = ["both right", `only ${a.name}`, `only ${b.name}`, "neither"];
    const filters = this.#filters().filter((filter) => filter.kind !== "set" || filter.options.length > 1);
    for (const filter of filters) if (filter.kind === "range") setEnds(filter);
    this.filters = new Map(filters.map((filter) => [filter.key, filter]));
    for (const key of this.active.keys()) if (!this.filters.has(key)) this.active.delete(key);
  }

  #filters() {
    const { a, b, data } = this;
    const named = (names) => names.map((name) => ({ name }));
    const labels = { key: "label", kind: "set", title: "Label", options: this.classes, codes: data.labels };
    const cells = { key: "cell", kind: "set", title: "Who is right", options: named(CELLS), codes: this.cell };
    const filters = [{ key: "only", kind: "only" }, cells, labels];
    for (const [side, { name, predicted, confidence }] of [["a", a], ["b", b]]) {
      const options = [...this.classes, { name: NONE }];
      const codes = predicted.map((k) => (k < 0 ? options.length - 1 : k));
      filters.push({ key: `says_${side}`, kind: "set", title: `${name} says`, side, options, codes });
      const title = `${name}: confidence`;
      filters.push({ key: `conf_${side}`, kind: "range", title, side, values: confidence, share: true });
    }
    if (this.writer || data.reasons) {
      const title = this.writer ? `Words in what ${this.writer.name} wrote` : "Words in the VLM's reason";
      filters.push({ key: "words", kind: "text", title, text: (row) => this.said(row) });
    }
    if (this.gate) {
      const codes = this.gate.right.map((right) => 1 - right);
      const title = `Gate: ${this.gate.name}`;
      filters.push({ key: "gate", kind: "set", title, options: named(["right", "wrong"]), codes });
    }
    if (this.share) {
      const title = "Gate: the student's share";
      filters.push({ key: "share", kind: "range", title, values: this.share, share: true });
    }
    const columns = data.columns.map((column) => ({
      ...column,
      key: `col.${column.name}`,
      title: column.name,
      column: true,
      options: column.options && named(column.options),
      values: column.kind === "range" ? column.values.map((value) => value ?? NaN) : column.values,
      text: (row) => column.values[row],
    }));
    return [...filters, ...columns];
  }

  /** Put each model in the other's place, what is chosen of it along with it. */
  swap() {
    const other = { says_a: "says_b", says_b: "says_a", conf_a: "conf_b", conf_b: "conf_a" };
    const swapped = [...this.active].map(([key, value]) => {
      if (key === "cell") return [key, new Set([...value].map((k) => [0, 2, 1, 3][k]))];
      return [other[key] ?? key, value];
    });
    this.active = new Map(swapped);
    this.sort = other[this.sort] ?? this.sort;
    this.setModels(this.placeB, this.placeA);
  }

  /** Set what a filter lets pass; an empty set, no text and undefined let all pass. */
  set(key, value) {
    const empty = value === undefined || value.size === 0 || (typeof value === "string" && !value.trim());
    if (empty) this.active.delete(key);
    else this.active.set(key, value);
  }

  toggle(key, option) {
    const chosen = new Set(this.active.get(key));
    if (!chosen.delete(option)) chosen.add(option);
    this.set(key, chosen);
  }

  /** Find what passes. Each active filter has a bit, set on the rows that it stops. */
  apply() {
    const { bits } = this;
    bits.fill(0);
    this.bitOf = new Map();
    for (const [key, value] of this.active) {
      const filter = this.filters.get(key);
      const bit = (1 << Math.min(this.bitOf.size, 31)) >>> 0;
      this.bitOf.set(key, bit);
      const passes = PASSES[filter.kind](filter, value);
      for (const row of this.rows) if (!passes(row)) bits[row] |= bit;
    }
    if (this.sort === "given" && !this.active.has("only")) this.sortBy("disagreement");
    const by = this.#sorting();
    const sign = this.down ? -1 : 1;
    this.selection = this.rows.filter((row) => bits[row] === 0);
    this.selection.sort((x, y) => sign * (by[x] - by[y]) || this.rank[x] - this.rank[y]);
  }

  #sorting() {
    if (this.sort === "given") return Object.fromEntries(this.active.get("only").map((row, k) => [row, k]));
    const { disagreement, a, b, rank } = this;
    return { disagreement, conf_a: a.confidence, conf_b: b.confidence, id: rank }[this.sort];
  }

  sortBy(name, down = name !== "id" && name !== "given") {
    Object.assign(this, { sort: name, down });
  }

  /** A function of a row: does it pass all filters but these? */
  passing(...but) {
    let mask = 0xffffffff;
    for (const key of but) mask &= ~(this.bitOf.get(key) ?? 0);
    return (row) => (this.bits[row] & mask) === 0;
  }

  /** How many images that pass all other filters have each option, or lie in each bin. */
  counts({ key, options, codes, values, low, high }) {
    const found = new Array(options ? options.length : BINS).fill(0);
    const scale = high > low ? BINS / (high - low) : 0;
    for (const row of this.rows.filter(this.passing(key))) {
      if (codes) found[codes[row]]++;
      else if (!Number.isNaN(values[row])) {
        found[Math.min(BINS - 1, Math.floor((values[row] - low) * scale))]++;
      }
    }
    return found;
  }

  /** For each label n, and how many of it A and B get right, whatever cells and labels are chosen. */
  byLabel() {
    const found = this.classes.map(() => ({ n: 0, a: 0, b: 0 }));
    for (const row of this.rows.filter(this.passing("cell", "label"))) {
      const counted = found[this.data.labels[row]];
      counted.n++;
      counted.a += this.a.right[row];
      counted.b += this.b.right[row];
    }
    return found;
  }

  get view() {
    const query = new URLSearchParams();
    if (this.placeA !== 0) query.append("a", this.a.name);
    if (this.placeB !== 1) query.append("b", this.b.name);
    for (const [key, filter] of this.filters) {
      if (!this.active.has(key)) continue;
      for (const text of WRITE[filter.kind](filter, this.active.get(key))) query.append(key, text);
    }
    const { sort, down } = this;
    this.sortBy(this.active.has("only") ? "given" : "disagreement");
    if (sort !== this.sort) query.append("sort", sort);
    this.sortBy(sort);
    if (down !== this.down) query.append("order", down ? "down" : "up");
    this.down = down;
    if (this.open !== undefined) query.append("open", this.data.ids[this.open]);
    return query.toString();
  }

  /** Take over a view; what of it is unknown here is left out. */
  set view(text) {
    const query = new URLSearchParams(text.replace(/^#/, ""));
    const place = (key, otherwise) => {
      const found = this.models.findIndex((model) => model.name === query.get(key));
      return found < 0 ? otherwise : found;
    };
    this.active.clear();
    this.setModels(place("a", 0), place("b", 1));
    for (const [key, filter] of this.filters) {
      const texts = query.getAll(key);
      if (texts.length) this.set(key, READ[filter.kind](filter, texts, this.n));
    }
    const sorts = ["disagreement", "conf_a", "conf_b", "id", "given"];
    const given = this.active.has("only") ? "given" : "disagreement";
    this.sortBy(sorts.includes(query.get("sort")) ? query.get("sort") : given);
    if (query.has("order")) this.down = query.get("order") === "down";
    const opened = this.data.ids.indexOf(query.get("open"));
    this.open = opened < 0 ? undefined : opened;
  }

  /** A metadata value as text or number, empty where there is none. */
  metadata(column, row) {
    const value = column.codes ? column.options[column.codes[row]] : column.values[row];
    return value === NONE ? "" : (value ?? "");
  }

  /** The selection as CSV, in the columns of `Explorer.table`. */
  csv() {
    const { data, a, b, writer, gate } = this;
    const name = (model, row) => this.classes[model.predicted[row]]?.name ?? "";
    const truth = (right) => (right ? "True" : "False");
    const columns = {
      id: (row) => data.ids[row],
      label: (row) => this.classes[data.labels[row]].name,
      cell: (row) => CELLS[this.cell[row]],
    };
    for (const [side, model] of [["a", a], ["b", b]]) {
      columns[`predicted_${side}`] = (row) => name(model, row);
      columns[`confidence_${side}`] = (row) => model.confidence[row];
      columns[`correct_${side}`] = (row) => truth(model.right[row]);
    }
    columns.disagreement = (row) => this.disagreement[row];
    if (writer) columns.answer = (row) => writer.answers[row];
    if (data.reasons) columns.reason = (row) => data.reasons[row] ?? "";
    if (gate) {
      columns.gate_predicted = (row) => name(gate, row);
      columns.gate_correct = (row) => truth(gate.right[row]);
    }
    if (this.share) columns.gate_student_share = (row) => this.share[row];
    const named = Object.entries(columns);
    for (const column of data.columns) named.push([column.name, (row) => this.metadata(column, row)]);
    const lines = this.selection.map((row) => named.map(([, value]) => csvCell(value(row))));
    lines.unshift(named.map(([title]) => csvCell(title)));
    return `\ufeff${lines.map((line) => line.join(",")).join("\r\n")}\r\n`;
  }
}

/** Least and greatest of a range filter's values: 0 and 1 for shares. */
function setEnds(filter) {
  const known = filter.share ? [0, 1] : filter.values.filter((value) => !Number.isNaN(value));
  filter.low = known.reduce((x, y) => Math.min(x, y), known[0] ?? 0);
  filter.high = known.reduce((x, y) => Math.max(x, y), known[0] ?? 0);
}

// ----------------------------------------------------------------------------------------- elements

/** An element. Children that are no nodes become text; of attributes, `on...` are listeners. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  if (tag === "button") node.type = "button";
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "vars") setVars(node, value);
    else node.setAttribute(name, value === true ? "" : shown(value));
  }
  fill(node, ...children);
  return node;
}

function fill(node, ...children) {
  const there = children.filter((child) => child !== null && child !== undefined);
  node.replaceChildren(...there.map((child) => (child instanceof Node ? child : shown(child))));
}

function setVars(node, values) {
  for (const [name, value] of Object.entries(values)) node.style.setProperty(name, value);
}

/** Text with the characters that would hide or turn its neighbours made visible. */
function shown(text) {
  const unseen = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
  return String(text).replace(unseen, "\ufffd");
}

const PATHS = {
  right: "M3 8.5 6.5 12 13 4.5",
  wrong: "M4 4 12 12 M12 4 4 12",
  swap: "M2 5.5h11M10 2.5l3 3-3 3M14 10.5H3M6 7.5l-3 3 3 3",
  back: "M10 3 5 8l5 5",
  forth: "M6 3l5 5-5 5",
  down: "M8 2.5v11M3.5 9 8 13.5 12.5 9",
  up: "M8 13.5v-11M3.5 7 8 2.5 12.5 7",
  save: "M8 2v8M4.5 7 8 10.5 11.5 7M2.5 13.5h11",
};

function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = svg.appendChild(document.createElementNS(space, "path"));
  path.setAttribute("d", PATHS[name]);
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

/** A button that shows an icon and says its name. */
const iconButton = (name, words, onclick) =>
  el("button", { class: "plain", "aria-label": words, title: words, onclick }, icon(name));

const swatch = (option) => option.colour && el("i", { class: "swatch", vars: { "--c": option.colour } });
const mark = (side) => el("i", { class: `mark ${side}` });
const heading = () => [el("h2"), el("p", { class: "note" })];

/** Show whether a button of a filter is chosen, and whether others are in its place. */
function press(button, chosen, option) {
  button.setAttribute("aria-pressed", String(Boolean(chosen?.has(option))));
  button.classList.toggle("faint", Boolean(chosen && !chosen.has(option)));
}

// ---------------------------------------------------------------------------------------- the map

/** Four areas in proportion: the left column is what A gets right, the lower parts what B does. */
class FourWayMap {
  constructor(engine, change) {
    this.engine = engine;
    [this.title, this.note] = heading();
    this.cells = CELLS.map((name, k) => {
      const onclick = () => change(() => engine.toggle("cell", k));
      const area = el("div", { class: `area ${name}`, "aria-hidden": "true", onclick });
      return { area, button: el("button", { class: `cell ${name}`, onclick }) };
    });
    const map = el("div", { class: "map" }, ...this.cells.map((cell) => cell.area));
    this.axis = el("div", { class: "map-axis note", "aria-hidden": "true" });
    const label = "Who is right: four areas in proportion to the number of images";
    const keys = el("div", { class: "flow wrapped", role: "group", "aria-label": label });
    keys.append(...this.cells.map((cell) => cell.button));
    this.node = el("section", { class: "figure four-way" }, this.title, this.note, map, this.axis, keys);
  }

  update() {
    const { engine } = this;
    const counts = engine.counts(engine.filters.get("cell"));
    const [both, onlyA, onlyB, neither] = counts;
    const n = both + onlyA + onlyB + neither;
    const wide = n ? (both + onlyA) / n : 0;
    const left = both / (both + onlyA || 1);
    const right = onlyB / (onlyB + neither || 1);
    const boxes = [
      { left: 0, top: 1 - left, width: wide, height: left },
      { left: 0, top: 0, width: wide, height: 1 - left },
      { left: wide, top: 1 - right, width: 1 - wide, height: right },
      { left: wide, top: 0, width: 1 - wide, height: 1 - right },
    ];
    const chosen = engine.active.get("cell");
    this.cells.forEach(({ area, button }, k) => {
      for (const [side, share] of Object.entries(boxes[k])) area.style[side] = `${100 * share}%`;
      area.hidden = !counts[k];
      const name = engine.cellNames[k];
      const [low, high] = wilson(counts[k], n).map((end) => fixed(end, 1));
      const share = n ? percent(counts[k] / n, 1) : "";
      fill(area, el("span", {}, el("span", {}, name), el("b", {}, count(counts[k])), share));
      fill(button, el("i", { class: "key" }), el("span", {}, name), el("b", {}, count(counts[k])));
      if (n) button.append(el("span", { class: "note" }, `${share} [${low}, ${high}]`));
      const words = n ? `, ${share}, 95 % interval ${low} to ${high} %` : "";
      button.setAttribute("aria-label", shown(`${name}: ${images(counts[k])}${words}`));
      press(button, chosen, k);
      press(area, chosen, k);
    });
    const [a, b] = [engine.a.name, engine.b.name];
    const facts = [`${a} right ${percent(wide, 1)}`, `${b} ${percent((both + onlyB) / n, 1)}`];
    facts.push(`either ${percent(1 - neither / n, 1)}. [95\u00a0% intervals]`);
    fill(this.title, fourWayTitle(counts, n));
    fill(this.note, `${ofAll(n, engine.n)}. ${n ? facts.join(", ") : ""}`);
    const ends = [wide > 0.2 ? `${a} right` : "", wide < 0.8 && n ? "wrong" : ""];
    fill(this.axis, ...ends.map((words) => el("span", {}, words)));
    setVars(this.axis, { "--wide": `${100 * wide}%` });
  }
}

function fourWayTitle([both, onlyA, onlyB, neither], n) {
  if (!n) return "No images";
  if (neither === n) return "Neither model is right on any image";
  if (!onlyA && !onlyB) return "Right on the same images";
  return onlyA + onlyB > both ? "Right on different images" : "Mostly right on the same images";
}

// ------------------------------------------------------------------------------------- by label

/** Accuracy of both models on each label: two dots a row, joined, with their intervals. */
class LabelDots {
  constructor(engine, change) {
    this.engine = engine;
    [this.title, this.note] = heading();
    fill(this.note, "Right, in\u00a0% of the images of each label; thin lines: 95\u00a0% intervals.");
    this.rows = engine.classes.map((label, k) => {
      const name = el("span", { class: "flow" }, swatch(label), el("span", { class: "cut" }, label.name));
      const plot = el("span", { class: "plot" });
      const [size, ofA, ofB] = ["note", "number", "number"].map((kind) => el("span", { class: kind }));
      const onclick = () => change(() => engine.toggle("label", k));
      const button = el("button", { class: "dots", onclick }, name, size, plot, ofA, ofB);
      return { button, size, plot, numbers: [ofA, ofB] };
    });
    const scale = el("span", { class: "scale" }, ...["0", "50", "100"].map((x) => el("span", {}, x)));
    const head = el("div", { class: "dots note", "aria-hidden": "true" }, el("span"), "n", scale);
    head.append(mark("a"), mark("b"));
    const rows = el("div", { role: "group", "aria-label": "Accuracy by label" });
    rows.append(head, ...this.rows.map((row) => row.button));
    this.node = el("section", { class: "figure by-label" }, this.title, this.note, rows);
  }

  update() {
    const { engine } = this;
    const found = engine.byLabel();
    const names = [engine.a.name, engine.b.name];
    this.rows.forEach(({ button, size, plot, numbers }, k) => {
      const { n, a, b } = found[k];
      const label = engine.classes[k].name;
      fill(size, count(n));
      press(button, engine.active.get("label"), k);
      fill(plot, n ? null : "no images");
      if (n) plot.append(...dots(n, [a, b]));
      [a, b].forEach((right, side) => fill(numbers[side], n ? fixed(right / n) : ""));
      const words = [a, b].map((right, side) => {
        const [low, high] = wilson(right, n).map((end) => fixed(end));
        return `${names[side]} ${percent(right / n)}, interval ${low} to ${high} %`;
      });
      button.setAttribute("aria-label", shown(`${label}, ${images(n)}${n ? `: ${words.join("; ")}` : ""}`));
    });
    const gaps = found.map(({ n, a, b }) => (n ? Math.abs(a - b) / n : 0));
    const widest = Math.max(...gaps);
    const name = engine.classes[gaps.indexOf(widest)].name;
    const none = found.every(({ n }) => !n);
    const title = widest ? `They differ most on ${name}` : "As often right on every label";
    fill(this.title, none ? "No images" : title);
  }
}

/** The marks of a row: a line that joins them, an interval each, A's disc and B's lozenge. */
function dots(n, rights) {
  const at = (kind, from, to) =>
    el("i", { class: kind, vars: { left: `${100 * from}%`, width: to && `${100 * (to - from)}%` } });
  const shares = rights.map((right) => right / n);
  const whiskers = rights.map((right, side) => at(`whisker ${"ab"[side]}`, ...wilson(right, n)));
  const joint = at("joint", Math.min(...shares), Math.max(...shares));
  return [joint, ...whiskers, at("mark b", shares[1]), at("mark a", shares[0])];
}

// ---------------------------------------------------------------------------------------- filters

/** A list of options to switch on and off, each with its number of images. */
function setFacet(engine, filter, change) {
  const rows = filter.options.map((option, k) => {
    const number = el("span", { class: "note" });
    const name = el("span", { class: "cut" }, option.name);
    const onclick = () => change(() => engine.toggle(filter.key, k));
    return { button: el("button", { class: "option", onclick }, swatch(option), name, number), number };
  });
  const node = el("div", { class: "options", role: "group", "aria-label": filter.title });
  node.append(...rows.map((row) => row.button));
  const update = () => {
    const counts = engine.counts(filter);
    const most = Math.max(1, ...counts);
    const chosen = engine.active.get(filter.key);
    rows.forEach(({ button, number }, k) => {
      const { name } = filter.options[k];
      fill(number, count(counts[k]));
      setVars(button, { "--bar": `${(100 * counts[k]) / most}%` });
      button.setAttribute("aria-label", shown(`${filter.title}: ${name}, ${images(counts[k])}`));
      button.hidden = name === NONE && !counts[k] && !chosen?.has(k);
      press(button, chosen, k);
    });
  };
  return { node, update };
}

/** Least and greatest value, under a histogram. */
function rangeFacet(engine, filter, change) {
  const { key, title, low, high } = filter;
  const bars = Array.from({ length: BINS }, () => el("i"));
  const step = filter.share ? 0.05 : "any";
  const [from, to] = ["least", "greatest"].map((end) => {
    const limits = { min: low, max: high, step, "aria-label": `${title}, ${end}` };
    return el("input", { type: "number", ...limits, onchange: take });
  });
  const histogram = el("div", { class: `histogram ${filter.side ?? ""}`, "aria-hidden": "true" }, ...bars);
  const node = el("div", {}, histogram, el("div", { class: "flow" }, from, "to", to));

  function take() {
    const ends = [from, to].map((input, k) => (input.value === "" ? [low, high][k] : Number(input.value)));
    const [x, y] = [Math.min(...ends), Math.max(...ends)];
    change(() => engine.set(key, x <= low && y >= high ? undefined : [x, y]));
  }

  function update() {
    const counts = engine.counts(filter);
    const most = Math.max(1, ...counts);
    const [x, y] = engine.active.get(key) ?? [low, high];
    bars.forEach((bar, k) => {
      bar.style.height = counts[k] ? `${Math.max(4, (100 * counts[k]) / most)}%` : "0";
      const middle = low + ((k + 0.5) / BINS) * (high - low);
      bar.classList.toggle("faint", middle < x || middle > y);
    });
    [from.value, to.value] = [short(x), short(y)];
  }
  return { node, update };
}

/** A field for words. */
function textFacet(engine, { key, title }, change) {
  let timer = 0;
  const take = () => {
    clearTimeout(timer);
    timer = 0;
    if ((engine.active.get(key) ?? "") !== node.value) change(() => engine.set(key, node.value));
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(take, 120);
  };
  const field = { type: "search", placeholder: "words", spellcheck: "false", autocomplete: "off" };
  const node = el("input", { ...field, "aria-label": title, onchange: take, oninput: later });
  const update = () => {
    const value = engine.active.get(key) ?? "";
    if (!timer && node.value.trim() !== value.trim()) node.value = value;
  };
  return { node, update };
}

const FACETS = { set: setFacet, range: rangeFacet, text: textFacet };

/** All filters but those of the two figures. */
class Sidebar {
  constructor(engine, change) {
    Object.assign(this, { engine, change });
    this.list = el("div");
    const title = el("summary", { class: "plain" }, "More filters");
    this.node = el("details", { class: "sidebar" }, title, this.list);
  }

  /** Lay the filters out anew, for the models that are now compared. */
  build() {
    const { engine, change } = this;
    const all = [...engine.filters.values()].filter(({ key }) => !["only", "cell", "label"].includes(key));
    const isFirst = ({ key }) => key === "col.cue" || key === "col.split";
    const own = all.filter((filter) => !filter.column);
    const rest = all.filter((filter) => filter.column && !isFirst(filter));
    this.facets = [...all.filter(isFirst), ...own, ...rest].map((filter) => {
      const facet = FACETS[filter.kind](engine, filter, change);
      const open = !rest.includes(filter) || engine.active.has(filter.key);
      const title = el("summary", {}, filter.side && mark(filter.side), el("span", {}, filter.title));
      facet.details = el("details", { open, ontoggle: () => this.update() }, title, facet.node);
      return facet;
    });
    fill(this.list, ...this.facets.map((facet) => facet.details));
    if (rest.length) this.facets.at(-rest.length).details.before(el("h3", {}, "Metadata"));
  }

  update() {
    for (const facet of this.facets) if (facet.details.open) facet.update();
  }
}

/** What a chosen value of a filter is called on its chip. */
function chipText(engine, { key, kind, side, title, share, options }, value) {
  const model = side && engine[side].name;
  if (kind === "only") return `chosen in the notebook: ${images(value.length)}`;
  if (kind === "text") return `${key === "words" ? "wrote" : `${title}:`} \u201c${value}\u201d`;
  if (kind === "range") {
    const [low, high] = value;
    if (!share) return `${title}: ${short(low)} to ${short(high)}`;
    const ends = `${fixed(low)} to ${percent(high)}`;
    return model ? `${model} ${ends} sure` : `student's share ${ends}`;
  }
  const { name } = options[value];
  if (key === "cell") return `${engine.cellNames[value]}${name === "neither" ? " right" : ""}`;
  if (model) return `${model} says ${name === NONE ? "no label" : name}`;
  return { label: `label ${name}`, gate: `gate ${name}` }[key] ?? `${title}: ${name}`;
}

/** How many are selected, and a chip for each thing chosen. */
class Chips {
  constructor(engine, change) {
    Object.assign(this, { engine, change });
    this.status = el("b", { class: "status", role: "status" });
    this.list = el("ul", { "aria-label": "Filters that are on" });
    const onclick = () => change(() => engine.active.clear());
    this.clear = el("button", { class: "plain", onclick }, "Clear all");
    this.node = el("div", { class: "flow wrapped chips" }, this.status, this.list, this.clear);
  }

  update() {
    const { engine, change, list } = this;
    const buttons = () => [...list.querySelectorAll("button")];
    const focused = buttons().indexOf(document.activeElement);
    const chips = [];
    for (const [key, filter] of engine.filters) {
      const value = engine.active.get(key);
      if (value === undefined) continue;
      const isSet = filter.kind === "set";
      for (const part of isSet ? [...value].sort((x, y) => x - y) : [value]) {
        const text = chipText(engine, filter, part);
        const onclick = () => change(() => (isSet ? engine.toggle(key, part) : engine.set(key, undefined)));
        const named = { class: "plain chip", "aria-label": `Remove filter: ${text}`, onclick };
        const button = el("button", named, el("span", { class: "cut" }, text), icon("wrong"));
        chips.push(el("li", {}, button));
      }
    }
    fill(list, ...chips);
    this.clear.hidden = !chips.length;
    fill(this.status, ofAll(engine.selection.length, engine.n));
    if (focused < 0) return;
    const next = buttons()[Math.min(focused, chips.length - 1)];
    (next ?? this.node.parentNode.querySelector("select")).focus();
  }
}

// ---------------------------------------------------------------------------------------- gallery

/** The selection as pictures, more of them as one scrolls. */
class Gallery {
  constructor(engine, host, open) {
    Object.assign(this, { engine, host, open });
    this.tiles = el("div", { class: "tiles", role: "list", onkeydown: (event) => this.#key(event) });
    this.empty = el("p", { class: "note" });
    this.end = el("div");
    this.node = el("div", { class: "gallery" }, this.empty, this.tiles, this.end);
    const near = { root: host.page ? null : this.node, rootMargin: "600px" };
    this.sight = new IntersectionObserver((seen) => seen.at(-1).isIntersecting && this.#add(), near);
  }

  update() {
    const { engine } = this;
    const n = engine.selection.length;
    const none = "No image passes all filters. Remove one of them.";
    this.node.scrollTop = 0;
    this.cursor = 0;
    fill(this.tiles);
    fill(this.empty, n ? "" : engine.n ? none : "There are no images to show.");
    this.tiles.setAttribute("aria-label", `Pictures: ${images(n)}`);
    this.#add();
  }

  #add() {
    const from = this.tiles.childElementCount;
    const rows = this.engine.selection.slice(from, from + BATCH);
    this.tiles.append(...rows.map((row, k) => this.#tile(row, from + k)));
    this.sight.unobserve(this.end);
    if (rows.length) this.sight.observe(this.end); // tells at once whether the end is still in sight
  }

  #tile(row, place) {
    const { engine } = this;
    const label = engine.classes[engine.data.labels[row]];
    const image = engine.data.ids[row];
    const sides = [["a", engine.a], ["b", engine.b]];
    const words = sides.map(([, model]) => `${model.name} says ${model.names[row]}, ${verdict(model, row)}`);
    const disagreement = `disagreement ${engine.disagreement[row].toFixed(2)}`;
    const button = el(
      "button",
      {
        tabindex: place === this.cursor ? 0 : -1,
        title: image,
        "aria-label": `${image}: label ${label.name}; ${words.join("; ")}; ${disagreement}`,
        onclick: () => this.open(place),
        onfocus: () => this.#point(place),
      },
      picture(this.host, engine, row, false),
      el("span", { class: "flow" }, swatch(label), el("b", { class: "cut" }, label.name)),
      ...sides.map(([side, model]) => {
        const says = el("span", { class: "cut" }, model.names[row]);
        return el("span", { class: `flow ${verdict(model, row)}` }, mark(side), says, icon(verdict(model, row)));
      }),
    );
    const position = { "aria-posinset": place + 1, "aria-setsize": engine.selection.length };
    return el("div", { class: "tile", role: "listitem", ...position }, button);
  }

  #point(place) {
    this.tiles.children[this.cursor].firstChild.tabIndex = -1;
    this.cursor = place;
    this.tiles.children[place].firstChild.tabIndex = 0;
  }

  /** Move the keyboard to a picture and bring it into sight. */
  focus(place) {
    while (this.tiles.childElementCount <= place) this.#add();
    const tile = this.tiles.children[place];
    tile.firstChild.focus({ preventScroll: true });
    tile.scrollIntoView({ block: "nearest" });
  }

  #key(event) {
    const { cursor, tiles } = this;
    const columns = getComputedStyle(tiles).gridTemplateColumns.split(" ").length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    const to = { Home: 0, End: tiles.childElementCount - 1 }[event.key] ?? cursor + step[event.key];
    if (Number.isNaN(to) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (to >= 0 && to < this.engine.selection.length) this.focus(to);
  }
}

/** A picture that comes when it is there; words in its place where it is missing. */
function picture(host, engine, row, large) {
  const frame = el("span", { class: "picture" });
  const missing = () => {
    frame.classList.add("missing");
    fill(frame, el("span", {}, "picture missing"));
  };
  const alt = large ? `Picture ${engine.data.ids[row]}` : "";
  const show = (url) => {
    if (!url) return missing();
    const img = el("img", { alt, loading: "lazy", decoding: "async", draggable: "false", onerror: missing });
    img.src = url;
    fill(frame, img);
  };
  const found = engine.missing.has(row) ? null : host.picture(row, large);
  if (found instanceof Promise) found.then(show);
  else show(found);
  return frame;
}

// ------------------------------------------------------------------------------------- one image

/** One image: what each model says of it, in words and numbers. */
class Detail {
  constructor(engine, host, moved, closed) {
    Object.assign(this, { engine, host, moved });
    this.position = el("span", { class: "note position", role: "status" });
    this.title = el("h2", { class: "cut" });
    this.back = iconButton("back", "Previous picture (arrow left)", () => this.show(this.place - 1));
    this.forth = iconButton("forth", "Next picture (arrow right)", () => this.show(this.place + 1));
    const close = iconButton("wrong", "Close (Escape)", () => this.node.close());
    const head = el("header", { class: "flow" }, this.back, this.forth, this.position, this.title, close);
    this.body = el("div", { class: "detail-body" });
    const behaviour = {
      onkeydown: (event) => this.#key(event),
      onclick: (event) => event.target === this.node && this.node.close(),
      onclose: () => {
        fill(this.body);
        closed(this.place);
      },
    };
    const frame = el("div", { class: "detail-frame" }, head, this.body);
    this.node = el("dialog", { class: "detail", "aria-label": "One image", ...behaviour }, frame);
  }

  /** Show the image at a place of the selection, if there is one. */
  show(place) {
    const { engine } = this;
    const row = engine.selection[place];
    if (row === undefined) return;
    this.place = place;
    this.back.disabled = place === 0;
    this.forth.disabled = place === engine.selection.length - 1;
    fill(this.position, `${count(place + 1)} of ${count(engine.selection.length)}`);
    fill(this.title, engine.data.ids[row]);
    fill(this.body, this.#picture(row), this.#models(row));
    this.body.scrollTop = 0;
    if (!this.node.open) {
      this.node.showModal();
      this.forth.focus();
    }
    this.moved(row);
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    event.stopPropagation();
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.show(this.place + step);
  }

  #picture(row) {
    const { engine, host } = this;
    const label = engine.classes[engine.data.labels[row]];
    const disagreement = engine.disagreement[row].toFixed(2);
    const facts = engine.data.columns.map((column) => [column.name, engine.metadata(column, row)]);
    const known = facts.filter(([, value]) => value !== "");
    return el(
      "div",
      { class: "detail-left" },
      picture(host, engine, row, true),
      el("h3", { class: "flow" }, "label", swatch(label), label.name),
      el("p", { class: "note" }, `disagreement ${disagreement} (Jensen-Shannon, 0 to 1)`),
      lines(known.map(([name, value]) => [name, typeof value === "number" ? short(value) : value])),
    );
  }

  #models(row) {
    const { data, a, b, models, writer, gate, share } = this.engine;
    const [student, vlm] = [models[data.student], models[data.vlm]];
    const parts = [el("h3", {}, "What each model says"), this.#bars(row, [a, b])];
    for (const model of new Set([a, b, writer])) {
      if (model?.answers) parts.push(quote(`${model.name} answered`, model.answers[row] || "(nothing)"));
    }
    if (data.reasons?.[row]) parts.push(quote("Its reason", data.reasons[row]));
    if (gate) {
      const others = [student, vlm === a || vlm === b ? undefined : vlm, gate].filter(Boolean);
      parts.push(el("h3", {}, student ? "Student and gate" : "The gate"), this.#bars(row, others));
    }
    if (share) parts.push(contributions(share[row], student, vlm));
    parts.push(el("h3", {}, "Where it comes from"));
    for (const model of new Set([a, b, student, vlm, gate].filter(Boolean))) {
      const known = model.provenance.length ? model.provenance : [["nothing recorded", ""]];
      parts.push(el("details", {}, el("summary", {}, model.name), lines(known)));
    }
    return el("div", {}, ...parts);
  }

  /** Distributions of some models over the classes, as bars on one scale. */
  #bars(row, models) {
    const { engine } = this;
    const head = models.map((model) => {
      const kind = verdict(model, row);
      const unseen = el("span", { class: "unseen" }, kind);
      const said = el("span", { class: `flow ${kind}` }, model.names[row], icon(kind), unseen);
      const name = el("span", { class: "flow" }, this.#mark(model), el("b", {}, model.name));
      return el("th", { scope: "col" }, name, said);
    });
    const body = engine.classes.map((label, k) => {
      const isLabel = engine.data.labels[row] === k;
      const cells = models.map((model) => {
        const p = model.p[row][k];
        const top = model.predicted[row] === k ? "top" : "";
        const vars = { "--p": `${100 * p}%`, "--c": model.colour };
        const bar = el("i", { class: `bar ${top}`, vars, "aria-hidden": "true" });
        const number = el("span", { class: "number" }, fixed(p, p < 0.9995 ? 1 : 0));
        return el("td", {}, el("span", { class: "flow" }, bar, number));
      });
      const name = el("span", { class: "flow" }, swatch(label), isLabel ? el("b", {}, label.name) : label.name);
      if (isLabel) name.append(el("span", { class: "unseen" }, ", the label"));
      return el("tr", { class: isLabel ? "is-label" : "" }, el("th", { scope: "row" }, name), ...cells);
    });
    const unseen = (tag, words, attributes) => el(tag, attributes, el("span", { class: "unseen" }, words));
    return el(
      "table",
      { class: "bars" },
      unseen("caption", "Probability of each class in per cent"),
      el("thead", {}, el("tr", {}, unseen("th", "class", { scope: "col" }), ...head)),
      el("tbody", {}, ...body),
    );
  }

  #mark(model) {
    if (model === this.engine.a) return mark("a");
    return model === this.engine.b ? mark("b") : swatch(model);
  }
}

function quote(title, text) {
  return el("figure", {}, el("figcaption", { class: "note" }, title), el("blockquote", {}, text));
}

function lines(facts) {
  return el("dl", {}, ...facts.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]));
}

/** The two shares of the gate's decision, as one bar. */
function contributions(share, student, vlm) {
  const sides = [
    [student?.name ?? "student", share, student?.colour ?? "#6e7781"],
    [vlm?.name ?? "VLM", 1 - share, vlm?.colour ?? "#8c6bb1"],
  ];
  const words = sides.map(([name, value]) => `${name} ${percent(value)}`).join(", ");
  const parts = sides.map(([, value, colour]) => {
    const vars = { "--c": colour, "flex-grow": String(Math.max(value, 0.001)) };
    return el("span", { class: "part", vars }, value >= 0.12 ? percent(value) : "");
  });
  const bar = el("div", { class: "parts", "aria-hidden": "true" }, ...parts);
  return el("div", { class: "contributions" }, el("p", {}, `Share in the gate's decision: ${words}`), bar);
}

// -------------------------------------------------------------------------------------- the whole

/**
 * Draw the explorer into `root`. `host` gives pictures and keeps what is chosen: picture(row, large)
 * is a URL, null, or a promise of one; save(view, rows) is called after each change.
 */
function mount(root, data, host) {
  const engine = new Engine(data);
  root.classList.add("emx", host.page ? "emx-page" : "emx-widget");
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  root.setAttribute("data-jp-suppress-context-menu", "true");

  const gallery = new Gallery(engine, host, (place) => detail.show(place));
  const detail = new Detail(engine, host, opened, closed);
  const sidebar = new Sidebar(engine, change);
  const map = new FourWayMap(engine, change);
  const byLabel = new LabelDots(engine, change);
  const chips = new Chips(engine, change);
  const parts = [map, byLabel, chips, sidebar, gallery];

  const selects = ["A", "B"].map((side, k) => {
    const onchange = (event) => choose(k, Number(event.target.value));
    const options = engine.models.map((model, place) => el("option", { value: place }, model.name));
    return el("select", { "aria-label": `Model ${side}`, onchange }, ...options);
  });
  const swap = iconButton("swap", "Swap the two models", () => change(() => engine.swap(), true));
  const chosen = el("div", { class: "flow models" }, mark("a"), selects[0], swap, mark("b"), selects[1]);
  const without = data.missing.length ? `${images(data.missing.length)} without a picture` : "";
  const title = el(host.page ? "h1" : "h2", {}, "Where two models disagree");
  const header = el("header", { class: "flow wrapped top" }, title, chosen, el("p", { class: "note" }, without));

  const sorts = ["disagreement", "conf_a", "conf_b", "id", "given"].map((value) => el("option", { value }));
  const onchange = () => change(() => engine.sortBy(sort.value));
  const sort = el("select", { class: "sort", "aria-label": "Sort by", onchange }, ...sorts);
  const turn = el("button", { class: "plain", onclick: () => change(() => (engine.down = !engine.down)) });
  const csv = iconButton("save", "Download the selection as CSV", download);
  csv.append("CSV");
  const order = el("div", { class: "flow" }, "Sort by", sort, turn, csv);
  const bar = el("div", { class: "flow wrapped bar-row" }, chips.node, order);
  const help = "Keyboard: Tab goes from filter to filter, arrow keys from picture to picture, Enter opens one; ";
  root.replaceChildren(
    header,
    el("div", { class: "figures" }, map.node, byLabel.node),
    bar,
    el("div", { class: "main" }, sidebar.node, gallery.node),
    el("p", { class: "note" }, `${help}there, left and right show the next and Escape closes.`),
    detail.node,
  );
  // Filters stand beside the pictures where there is room, folded above them where there is none.
  const width = new ResizeObserver(() => (sidebar.node.open = root.clientWidth >= 820 || sidebar.node.open));

  function choose(side, place) {
    change(() => {
      const { placeA, placeB } = engine;
      if (place === (side ? placeA : placeB)) engine.swap();
      else engine.setModels(side ? placeA : place, side ? place : placeB);
    }, true);
  }

  function opened(row) {
    engine.open = host.page ? row : undefined; // a widget may stand in several cells: one opens it
    host.save(engine.view, engine.selection);
  }

  function closed(place) {
    opened(undefined);
    if (place < engine.selection.length) gallery.focus(place);
  }

  /** Do something to the engine and show what follows. others: the models may be others. */
  function change(work, others = false) {
    work();
    engine.open = undefined;
    refresh(others);
  }

  function refresh(others) {
    const { a, b, down } = engine;
    engine.apply();
    if (others) {
      setVars(root, { "--colour-a": a.colour, "--colour-b": b.colour });
      [selects[0].value, selects[1].value] = [engine.placeA, engine.placeB];
      const names = ["disagreement", `confidence of ${a.name}`, `confidence of ${b.name}`, "id", "order given"];
      sorts.forEach((option, k) => fill(option, names[k]));
      sidebar.build();
    }
    sorts[4].hidden = !engine.active.has("only");
    sort.value = engine.sort;
    fill(turn, icon(down ? "down" : "up"));
    const words = `${down ? "Greatest" : "Least"} first; turn the order`;
    turn.setAttribute("aria-label", words);
    turn.setAttribute("title", words);
    csv.disabled = !engine.selection.length;
    for (const part of parts) part.update();
    host.save(engine.view, engine.selection);
  }

  function download() {
    const url = URL.createObjectURL(new Blob([engine.csv()], { type: "text/csv;charset=utf-8" }));
    const link = el("a", { href: url, download: "selection.csv", hidden: true });
    root.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  /** Show a view; an image that it opens must be among those selected. */
  function show(view) {
    engine.view = view;
    const { open } = engine;
    engine.open = undefined;
    refresh(true);
    const place = engine.selection.indexOf(open);
    if (place >= 0) detail.show(place);
    else if (detail.node.open) detail.node.close();
  }

  width.observe(root);
  show(host.view);
  return {
    show: (view) => view !== engine.view && show(view),
    stop() {
      width.disconnect();
      gallery.sight.disconnect();
    },
  };
}

// --------------------------------------------------------------------------------------- the page

/** Draw the page from what is embedded in it; the view lives in the URL's hash. */
function openPage() {
  const embedded = (id) => JSON.parse(document.getElementById(id).textContent);
  const root = document.getElementById("emx");
  const where = embedded("emx-pictures");
  const host = {
    page: true,
    view: location.hash.length > 1 ? location.hash : embedded("emx-view"),
    picture(row) {
      if (where.folder) return `${where.folder}/${String(row).padStart(6, "0")}.webp`;
      return where.inside[row] && `data:image/webp;base64,${where.inside[row]}`;
    },
    save(view) {
      try {
        history.replaceState(history.state, "", `#${view}`);
      } catch {
        location.hash = view; // where a frame may not rewrite its history
      }
    },
  };
  const explorer = mount(root, embedded("emx-data"), host);
  window.addEventListener("hashchange", () => explorer.show(location.hash.slice(1)));
  root.dataset.ready = "";
}

// ------------------------------------------------------------------------------------- the widget

/** Draw the widget; pictures are fetched from the kernel, small ones once. */
function render({ model, el: root }) {
  const data = JSON.parse(new TextDecoder().decode(model.get("_data")));
  const pictures = new Map(); // "row large" -> { url: a promise, take: what resolves it }
  let [queue, asking, saving] = [[], 0, 0];

  function flush() {
    for (let at = 0; at < queue.length; at += BATCH) {
      model.send({ type: "pictures", rows: queue.slice(at, at + BATCH), large: false });
    }
    [queue, asking] = [[], 0];
  }

  function received(message, buffers) {
    if (message?.type !== "pictures") return;
    message.rows.forEach((row, k) => {
      const picture = new Blob([buffers[k]], { type: "image/webp" });
      pictures.get(`${row} ${message.large}`)?.take(picture.size ? URL.createObjectURL(picture) : null);
    });
  }

  const host = {
    page: false,
    view: model.get("_view"),
    picture(row, large) {
      const key = `${row} ${large}`;
      if (!pictures.has(key)) {
        const asked = {};
        asked.url = new Promise((take) => (asked.take = take));
        pictures.set(key, asked);
        if (large) model.send({ type: "pictures", rows: [row], large });
        else queue.push(row);
        asking ||= setTimeout(flush, 40);
      }
      return pictures.get(key).url;
    },
    save(view, rows) {
      model.set("_view", view);
      model.set("_rows", rows);
      clearTimeout(saving);
      saving = setTimeout(() => model.save_changes(), 60);
    },
  };
  const explorer = mount(root, data, host);
  const changed = () => explorer.show(model.get("_view"));
  model.on("msg:custom", received);
  model.on("change:_view", changed);
  return () => {
    model.off("msg:custom", received);
    model.off("change:_view", changed);
    explorer.stop();
    for (const { url, take } of pictures.values()) {
      url.then((made) => made && URL.revokeObjectURL(made));
      take(null); // what never came is waited for no longer
    }
  };
}

export default { render };
