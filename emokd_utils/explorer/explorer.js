// The explorer. One module for the notebook's widget (the default export, for anywidget) and for the
// page (openPage). What comes from outside (names, answers, metadata) enters the document as text
// nodes and attribute values only, never as markup.

const CELLS = ["both", "a", "b", "neither"];
const CELL_NAMES = ["both right", "only A", "only B", "neither"];
const NONE = "(none)";
const SORTS = ["disagreement", "conf_a", "conf_b", "id"];
const Z = 1.959963984540054; // of a 95 % interval
const BINS = 24;
const STEPS = 200; // of a slider
const GAP = 10; // between pictures, in pixels
const KEPT_PICTURES = 600; // in the widget's memory

// ------------------------------------------------------------------------------------------ numbers

/** Wilson's 95 % interval of a share, k of n. */
function wilson(k, n) {
  if (!n) return [NaN, NaN];
  const p = k / n;
  const scale = 1 + (Z * Z) / n;
  const middle = (p + (Z * Z) / (2 * n)) / scale;
  const reach = (Z * Math.sqrt((p * (1 - p)) / n + (Z * Z) / (4 * n * n))) / scale;
  return [Math.max(0, middle - reach), Math.min(1, middle + reach)];
}

const count = (value) => value.toLocaleString("en-GB");
const fixed = (share, digits) => (100 * share).toFixed(digits);
const percent = (share, digits = 0) =>
  Number.isNaN(share) ? "undefined" : `${fixed(share, digits)}\u00a0%`;
const interval = ([low, high], digits = 0) => `[${fixed(low, digits)}, ${fixed(high, digits)}]`;
const images = (n) => (n === 1 ? "1 image" : `${count(n)} images`);
const short = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "");

function unpack(text, Type) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Type(bytes.buffer);
}

/** Jensen-Shannon divergence in bits of each row of two matrices (n, C), to six decimals. */
function jensenShannon(p, q, n, classes) {
  const found = new Float64Array(n);
  for (let row = 0, at = 0; row < n; row++) {
    let sum = 0;
    for (let k = 0; k < classes; k++, at++) {
      const middle = (p[at] + q[at]) / 2;
      if (p[at] > 0) sum += p[at] * Math.log2(p[at] / middle);
      if (q[at] > 0) sum += q[at] * Math.log2(q[at] / middle);
    }
    found[row] = Math.round(Math.min(1, Math.max(0, sum / 2)) * 1e6) / 1e6;
  }
  return found;
}

// ------------------------------------------------------------------------------- what is chosen

/** The data, the two models that are compared, the filters, and the images that pass them. */
class Engine {
  constructor(data) {
    this.data = data;
    this.n = data.n;
    this.classes = data.classes;
    this.rank = unpack(data.rank, Int32Array);
    this.labels = unpack(data.labels, Int32Array);
    this.splits = unpack(data.splits.codes, Int32Array);
    this.share = data.share && Float64Array.from(unpack(data.share, Float32Array));
    this.models = data.models.map((model) => this.#model(model));
    this.columns = data.columns.map((column) => ({
      ...column,
      codes: column.codes && unpack(column.codes, Int32Array),
      values: column.kind === "number" ? unpack(column.values, Float64Array) : column.values,
    }));
    this.missing = new Set(data.missing);
    this.bits = new Uint32Array(this.n);
    this.active = new Map();
    this.sort = "disagreement";
    this.down = true;
    this.open = null;
    this.orders = new Map();
    this.setModels(0, 1);
  }

  #model(model) {
    const { n } = this;
    const size = this.classes.length;
    const p = unpack(model.probabilities, Float32Array);
    const predicted = unpack(model.predicted, Int32Array);
    const confidence = new Float64Array(n);
    const right = new Uint8Array(n);
    for (let row = 0; row < n; row++) {
      let most = 0;
      for (let k = 0; k < size; k++) most = Math.max(most, p[row * size + k]);
      confidence[row] = most;
      right[row] = predicted[row] === this.labels[row] ? 1 : 0;
    }
    return { ...model, p, predicted, confidence, right, says: predicted.map((k) => (k < 0 ? size : k)) };
  }

  get a() {
    return this.models[this.placeA];
  }

  get b() {
    return this.models[this.placeB];
  }

  /** Whose answers are searched and shown: A's, else B's, else the first there are. */
  get writer() {
    return [this.a, this.b, ...this.models].find((model) => model.answers) ?? null;
  }

  setModels(a, b) {
    this.placeA = a;
    this.placeB = b;
    const [one, two] = [this.a, this.b];
    const { data } = this;
    const says = [...this.classes, { name: NONE }];
    const filters = [
      {
        key: "cell",
        kind: "set",
        title: "Who is right",
        options: CELLS.map((name) => ({ name })),
        codes: one.right.map((right, row) => 2 * (1 - right) + (1 - two.right[row])),
      },
      { key: "label", kind: "set", title: "Label", options: this.classes, codes: this.labels },
      { key: "says_a", kind: "set", title: `${one.name} says`, options: says, codes: one.says, side: "a" },
      { key: "says_b", kind: "set", title: `${two.name} says`, options: says, codes: two.says, side: "b" },
      { key: "conf_a", kind: "range", title: `${one.name}: confidence`, values: one.confidence, side: "a", share: true },
      { key: "conf_b", kind: "range", title: `${two.name}: confidence`, values: two.confidence, side: "b", share: true },
    ];
    const writer = this.writer;
    if (writer || data.reasons) {
      filters.push({
        key: "words",
        kind: "text",
        title: writer ? `Words in what ${writer.name} wrote` : "Words in the VLM's reason",
        text: (row) => `${writer ? writer.answers[row] : ""}\n${data.reasons?.[row] ?? ""}`,
      });
    }
    if (data.gate !== null) {
      const gate = this.models[data.gate];
      filters.push({
        key: "gate",
        kind: "set",
        title: `Gate: ${gate.name}`,
        options: [{ name: "right" }, { name: "wrong" }],
        codes: gate.right.map((right) => 1 - right),
      });
    }
    if (this.share) {
      filters.push({ key: "share", kind: "range", title: "Gate: the student's share", values: this.share, share: true });
    }
    for (const column of this.columns) {
      const options = column.options?.map((name) => ({ name }));
      const filter = { key: `col.${column.name}`, title: column.name, column: true, codes: column.codes };
      if (column.kind === "category") filters.push({ ...filter, kind: "set", options });
      else if (column.kind === "number") filters.push({ ...filter, kind: "range", values: column.values });
      else filters.push({ ...filter, kind: "text", text: (row) => column.values[row] });
    }
    this.filters = new Map(filters.map((filter) => [filter.key, filter]));
    for (const filter of filters) if (filter.kind === "range") setEnds(filter);
    for (const key of this.active.keys()) if (!this.filters.has(key)) this.active.delete(key);
    this.orders.clear();
    this.disagreement = jensenShannon(one.p, two.p, this.n, this.classes.length);
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

  /** Set what a filter lets pass: a set of options, [low, high] or text; null lets all pass. */
  set(key, value) {
    const empty = value === null || value.size === 0 || value === "" || (typeof value === "string" && !value.trim());
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
    const { bits, n } = this;
    bits.fill(0);
    this.bitOf = new Map();
    for (const [key, value] of this.active) {
      const filter = this.filters.get(key);
      const bit = (1 << Math.min(this.bitOf.size, 31)) >>> 0;
      this.bitOf.set(key, bit);
      if (filter.kind === "set") {
        for (let row = 0; row < n; row++) if (!value.has(filter.codes[row])) bits[row] |= bit;
      } else if (filter.kind === "range") {
        const [low, high] = value;
        const { values } = filter;
        for (let row = 0; row < n; row++) if (!(values[row] >= low && values[row] <= high)) bits[row] |= bit;
      } else {
        const words = value.toLowerCase().split(/\s+/).filter(Boolean);
        filter.lower ??= Array.from({ length: n }, (_, row) => filter.text(row).toLowerCase());
        for (let row = 0; row < n; row++) {
          if (!words.every((word) => filter.lower[row].includes(word))) bits[row] |= bit;
        }
      }
    }
    this.selection = this.#order().filter((row) => bits[row] === 0);
  }

  /** A function of a row: does it pass all filters but these? */
  passing(...but) {
    let mask = 0xffffffff;
    for (const key of but) mask &= ~(this.bitOf.get(key) ?? 0);
    const { bits } = this;
    return (row) => (bits[row] & mask) === 0;
  }

  /** How many images that pass all other filters have each option, or lie in each bin. */
  counts(filter) {
    const passes = this.passing(filter.key);
    const found = new Int32Array(filter.kind === "set" ? filter.options.length : BINS);
    const { codes, values, low, high } = filter;
    const scale = high > low ? BINS / (high - low) : 0;
    for (let row = 0; row < this.n; row++) {
      if (!passes(row)) continue;
      if (codes) found[codes[row]]++;
      else if (!Number.isNaN(values[row])) found[Math.min(BINS - 1, Math.floor((values[row] - low) * scale))]++;
    }
    return found;
  }

  /** Both right, only A, only B, neither: of the images that pass all filters but the cell's. */
  fourWay() {
    return Array.from(this.counts(this.filters.get("cell")));
  }

  /** For each label n, and how many of it A and B get right, whatever cells and labels are chosen. */
  byLabel() {
    const passes = this.passing("cell", "label");
    const found = this.classes.map(() => ({ n: 0, a: 0, b: 0 }));
    for (let row = 0; row < this.n; row++) {
      if (!passes(row)) continue;
      const one = found[this.labels[row]];
      one.n++;
      one.a += this.a.right[row];
      one.b += this.b.right[row];
    }
    return found;
  }

  #order() {
    const key = `${this.sort} ${this.down}`;
    if (!this.orders.has(key)) {
      const by = {
        disagreement: this.disagreement,
        conf_a: this.a.confidence,
        conf_b: this.b.confidence,
        id: this.rank,
      }[this.sort];
      const sign = this.down ? -1 : 1;
      const { rank } = this;
      const order = Int32Array.from({ length: this.n }, (_, row) => row);
      this.orders.set(key, order.sort((x, y) => sign * (by[x] - by[y]) || rank[x] - rank[y]));
    }
    return this.orders.get(key);
  }

  /** The view as the query of a URL; see the Python module for its keys. */
  get view() {
    const query = new URLSearchParams();
    if (this.placeA !== 0) query.append("a", this.a.name);
    if (this.placeB !== 1) query.append("b", this.b.name);
    for (const [key, filter] of this.filters) {
      const value = this.active.get(key);
      if (value === undefined) continue;
      if (filter.kind === "set") [...value].sort((x, y) => x - y).forEach((k) => query.append(key, filter.options[k].name));
      else query.append(key, filter.kind === "range" ? value.join("..") : value);
    }
    if (this.sort !== "disagreement") query.append("sort", this.sort);
    if (this.down !== (this.sort !== "id")) query.append("order", this.down ? "down" : "up");
    if (this.open !== null) query.append("open", this.data.ids[this.open]);
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
      const values = query.getAll(key);
      if (!values.length) continue;
      if (filter.kind === "set") {
        const options = values.map((name) => filter.options.findIndex((option) => option.name === name));
        this.set(key, new Set(options.filter((k) => k >= 0)));
      } else if (filter.kind === "range") {
        const ends = values.at(-1).split("..").map(Number);
        if (ends.length === 2 && !ends.some(Number.isNaN)) this.set(key, ends);
      } else this.set(key, values.at(-1));
    }
    const sort = query.get("sort");
    this.sort = SORTS.includes(sort) ? sort : "disagreement";
    const order = query.get("order");
    this.down = order === "up" || order === "down" ? order === "down" : this.sort !== "id";
    const opened = this.data.ids.indexOf(query.get("open"));
    this.open = opened < 0 ? null : opened;
  }

  /** The selection as CSV, in the columns of `Explorer.selection`. */
  csv() {
    const { data, a, b, writer } = this;
    const name = (model, row) => this.classes[model.predicted[row]]?.name ?? "";
    const truth = (right) => (right ? "True" : "False");
    const cell = this.filters.get("cell").codes;
    const columns = [
      ["id", (row) => data.ids[row]],
      ["split", (row) => data.splits.options[this.splits[row]]],
      ["label", (row) => this.classes[this.labels[row]].name],
      ["cell", (row) => CELL_NAMES[cell[row]]],
    ];
    for (const [side, model] of [["a", a], ["b", b]]) {
      columns.push(
        [`predicted_${side}`, (row) => name(model, row)],
        [`confidence_${side}`, (row) => model.confidence[row]],
        [`correct_${side}`, (row) => truth(model.right[row])],
      );
    }
    columns.push(["disagreement", (row) => this.disagreement[row]]);
    if (writer) columns.push(["answer", (row) => writer.answers[row]]);
    if (data.reasons) columns.push(["reason", (row) => data.reasons[row] ?? ""]);
    if (data.gate !== null) {
      const gate = this.models[data.gate];
      columns.push(["gate_predicted", (row) => name(gate, row)], ["gate_correct", (row) => truth(gate.right[row])]);
    }
    if (this.share) columns.push(["gate_student_share", (row) => this.share[row]]);
    const taken = new Set(columns.map(([title]) => title));
    for (const column of this.columns) {
      if (column.name === "split") continue;
      const title = taken.has(column.name) ? `${column.name} (metadata)` : column.name;
      taken.add(title);
      columns.push([title, (row) => this.metadata(column, row)]);
    }
    const lines = [columns.map(([title]) => csvCell(title))];
    for (const row of this.selection) lines.push(columns.map(([, value]) => csvCell(value(row))));
    return `\ufeff${lines.map((line) => line.join(",")).join("\r\n")}\r\n`;
  }

  /** A metadata value as text or number, empty where there is none. */
  metadata(column, row) {
    if (column.kind === "category") {
      const text = column.options[column.codes[row]];
      return text === NONE ? "" : text;
    }
    const value = column.values[row];
    return Number.isNaN(value) ? "" : value;
  }
}

/** Least and greatest of a range filter's values: 0 and 1 for shares. */
function setEnds(filter) {
  let [low, high] = filter.share ? [0, 1] : [Infinity, -Infinity];
  if (!filter.share) {
    for (const value of filter.values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  [filter.low, filter.high] = low <= high ? [low, high] : [0, 0];
}

/** A cell that keeps its text in any spreadsheet and is a formula in none. */
function csvCell(value) {
  if (typeof value === "number") return String(value);
  const text = /^(\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|')/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// ----------------------------------------------------------------------------------------- elements

/** An element. Children that are no nodes become text; of attributes, `on...` are listeners. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined).map((child) => (child instanceof Node ? child : shown(child))));
  return node;
}

/** Text with the characters that would hide or turn its neighbours made visible. */
function shown(text) {
  return String(text).replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
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
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", `icon ${name}`);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

const colours = (colour) => ({
  "--c-light": colour.light,
  "--c-dark": colour.dark,
  "--c-light-ink": colour.light_ink,
  "--c-dark-ink": colour.dark_ink,
});

const swatch = (option) => (option?.colour ? el("i", { class: "swatch", vars: colours(option.colour) }) : null);
const mark = (side) => el("i", { class: `mark ${side}` });

/** Call `work` once in the next frame, however often it is asked for. */
function inNextFrame(work) {
  let waiting = 0;
  return () => {
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      work();
    });
  };
}

// ---------------------------------------------------------------------------------------- the map

/** Four areas in proportion: the left column is what A gets right, the lower parts what B does. */
class FourWayMap {
  constructor(engine, change) {
    this.engine = engine;
    this.title = el("h2");
    this.note = el("p", { class: "note" });
    this.map = el("div", { class: "map" });
    this.keys = el("div", { class: "keys" });
    this.ruler = el("span", { class: "cell-text ruler", "aria-hidden": "true", hidden: true });
    this.map.append(this.ruler);
    this.axis = el("div", { class: "map-axis", "aria-hidden": "true" });
    this.cells = CELLS.map((name, k) => {
      const toggle = () => change(() => engine.toggle("cell", k));
      const area = el("div", { class: `area ${name}`, onclick: toggle });
      const text = el("span", { class: "cell-text" });
      const button = el("button", { type: "button", class: `cell ${name}`, onclick: toggle }, text);
      this.map.append(area);
      return { name, area, text, button };
    });
    const group = el("div", { class: "map-group", role: "group", "aria-label": "Who is right: four areas in proportion to the number of images" }, this.map, this.axis, this.keys);
    this.node = el("section", { class: "figure four-way" }, this.title, this.note, group);
  }

  update() {
    const { engine, cells } = this;
    const counts = engine.fourWay();
    const [both, onlyA, onlyB, neither] = counts;
    const n = both + onlyA + onlyB + neither;
    const [a, b] = [engine.a.name, engine.b.name];
    const wide = n ? (both + onlyA) / n : 0;
    const left = both + onlyA ? both / (both + onlyA) : 0;
    const right = onlyB + neither ? onlyB / (onlyB + neither) : 0;
    const boxes = [
      [0, 1 - left, wide, left],
      [0, 0, wide, 1 - left],
      [wide, 1 - right, 1 - wide, right],
      [wide, 0, 1 - wide, 1 - right],
    ];
    const names = ["both right", `only ${a}`, `only ${b}`, "neither"];
    const chosen = engine.active.get("cell");
    cells.forEach((cell, k) => {
      const share = n ? counts[k] / n : NaN;
      const ends = wilson(counts[k], n);
      const [x, y, width, height] = boxes[k];
      cell.box = boxes[k];
      cell.count = counts[k];
      Object.assign(cell.area.style, {
        left: `${100 * x}%`,
        top: `${100 * y}%`,
        width: `${100 * width}%`,
        height: `${100 * height}%`,
      });
      cell.area.hidden = !counts[k];
      const faint = chosen && !chosen.has(k);
      cell.area.classList.toggle("faint", Boolean(faint));
      cell.area.classList.toggle("chosen", Boolean(chosen?.has(k)));
      const numbers = n ? `${percent(share, 1)} ${interval(ends, 1)}` : "";
      cell.text.replaceChildren(
        el("span", { class: "cell-name" }, el("i", { class: `key ${cell.name}` }), names[k]),
        el("b", {}, count(counts[k])),
        el("span", { class: "cell-share" }, numbers),
      );
      cell.button.setAttribute("aria-pressed", String(Boolean(chosen?.has(k))));
      cell.button.setAttribute("aria-label", shown(`${names[k]}: ${images(counts[k])}${n ? `, ${percent(share, 1)}, 95 % interval ${fixed(ends[0], 1)} to ${fixed(ends[1], 1)} %` : ""}`));
    });
    this.title.replaceChildren(shown(fourWayTitle(counts, n)));
    const facts = n ? ` ${a} right ${percent(wide, 1)}, ${b} ${percent((both + onlyB) / n, 1)}, either ${percent(1 - neither / n, 1)}.` : "";
    this.note.replaceChildren(shown(`${ofAll(n, engine.n)}.${facts} [95\u00a0% intervals]`));
    this.axis.replaceChildren(
      el("span", { vars: { width: `${100 * wide}%` } }, wide > 0.2 ? `${a} right ${percent(wide)}` : ""),
      el("span", {}, wide < 0.8 && n ? `wrong ${percent(1 - wide)}` : ""),
    );
    this.place();
  }

  /** Write into each area what fits; the rest goes to the list below the map. */
  place() {
    const { width, height } = this.map.getBoundingClientRect();
    const { activeElement } = this.node.ownerDocument;
    this.ruler.hidden = false;
    const fits = this.cells.map((cell) => {
      const [, , w, h] = cell.box;
      if (!cell.count || w * width < 60) return false;
      this.ruler.style.width = `${w * width - 16}px`;
      this.ruler.replaceChildren(...[...cell.text.childNodes].map((node) => node.cloneNode(true)));
      return this.ruler.scrollWidth <= w * width - 14 && this.ruler.offsetHeight + 8 <= h * height;
    });
    this.ruler.hidden = true;
    this.cells.forEach((cell, k) => {
      const { button, area } = cell;
      const focused = button === activeElement;
      const parent = fits[k] ? this.map : this.keys;
      button.classList.toggle("outside", !fits[k]);
      for (const side of ["left", "top", "width", "height"]) button.style[side] = fits[k] ? area.style[side] : "";
      if (button.parentNode !== parent) parent.append(button);
      if (focused && button !== activeElement.ownerDocument.activeElement) button.focus({ preventScroll: true });
    });
    this.keys.hidden = fits.every(Boolean);
  }
}

function fourWayTitle([both, onlyA, onlyB, neither], n) {
  if (!n) return "No images";
  if (neither === n) return "Neither model is right on any image";
  if (!onlyA && !onlyB) return "Right on the same images";
  return onlyA + onlyB > both ? "Right on different images" : "Mostly right on the same images";
}

const ofAll = (n, all) => (n === all ? images(n) : `${count(n)} of ${images(all)}`);

// ------------------------------------------------------------------------------------- by label

/** Accuracy of both models on each label: two dots a row, joined, with their intervals. */
class LabelDots {
  constructor(engine, change) {
    this.engine = engine;
    this.title = el("h2");
    this.note = el("p", { class: "note" });
    this.rows = engine.classes.map((label, k) => {
      const name = el("span", { class: "dots-name" }, swatch(label), el("span", { class: "dots-label" }, label.name));
      const size = el("span", { class: "dots-n" });
      const plot = el("span", { class: "dots-plot" });
      const numbers = [el("span", { class: "dots-number" }), el("span", { class: "dots-number" })];
      const button = el("button", { type: "button", class: "dots-row", onclick: () => change(() => engine.toggle("label", k)) }, name, size, plot, ...numbers);
      return { button, size, plot, numbers, label };
    });
    const head = el("div", { class: "dots-head", "aria-hidden": "true" }, el("span"), el("span", { class: "dots-n" }, "n"), el("span", { class: "dots-plot" }, el("span", {}, "0"), el("span", {}, "50"), el("span", {}, "100")), mark("a"), mark("b"));
    this.node = el("section", { class: "figure by-label" }, this.title, this.note, el("div", { class: "dots", role: "group", "aria-label": "Accuracy by label" }, head, ...this.rows.map((row) => row.button)));
  }

  update() {
    const { engine } = this;
    const found = engine.byLabel();
    const [a, b] = [engine.a.name, engine.b.name];
    const chosen = engine.active.get("label");
    let widest = null;
    this.rows.forEach((row, k) => {
      const { n } = found[k];
      const shares = [found[k].a / n, found[k].b / n];
      const ends = [wilson(found[k].a, n), wilson(found[k].b, n)];
      row.size.replaceChildren(count(n));
      row.button.setAttribute("aria-pressed", String(Boolean(chosen?.has(k))));
      row.button.classList.toggle("faint", Boolean(chosen && !chosen.has(k)));
      if (!n) {
        row.plot.replaceChildren(el("span", { class: "dots-none" }, "no images"));
        row.numbers.forEach((number) => number.replaceChildren());
        row.button.setAttribute("aria-label", shown(`${row.label.name}: no images`));
        return;
      }
      const low = Math.min(...shares);
      row.plot.replaceChildren(
        el("i", { class: "joint", vars: { left: `${100 * low}%`, width: `${100 * Math.abs(shares[0] - shares[1])}%` } }),
        ...["a", "b"].map((side, at) => el("i", { class: `whisker ${side}`, vars: { left: `${100 * ends[at][0]}%`, width: `${100 * (ends[at][1] - ends[at][0])}%` } })),
        ...["b", "a"].map((side, at) => el("i", { class: `mark ${side}`, vars: { left: `${100 * shares[1 - at]}%` } })),
      );
      row.numbers.forEach((number, at) => number.replaceChildren(fixed(shares[at], 0)));
      const words = [a, b].map((name, at) => `${name} ${percent(shares[at])}, interval ${fixed(ends[at][0], 0)} to ${fixed(ends[at][1], 0)} %`);
      row.button.setAttribute("aria-label", shown(`${row.label.name}, ${images(n)}: ${words.join("; ")}`));
      const gap = Math.abs(found[k].a - found[k].b) / n;
      if (gap > 0 && (!widest || gap > widest.gap)) widest = { gap, name: row.label.name };
    });
    const n = found.reduce((sum, one) => sum + one.n, 0);
    this.title.replaceChildren(shown(widest ? `They differ most on ${widest.name}` : n ? "As often right on every label" : "No images"));
    this.note.replaceChildren("Right, in\u00a0% of the images of each label; thin lines: 95\u00a0% intervals.");
  }
}

// ---------------------------------------------------------------------------------------- filters

/** A list of options to switch on and off, each with its number of images. */
function setFacet(engine, filter, change) {
  const rows = filter.options.map((option, k) => {
    const number = el("span", { class: "option-count" });
    const button = el("button", { type: "button", class: "option", onclick: () => change(() => engine.toggle(filter.key, k)) }, swatch(option), el("span", { class: "option-name" }, option.name), number);
    return { button, number, option };
  });
  const list = el("div", { class: "options", role: "group", "aria-label": shown(filter.title) }, ...rows.map((row) => row.button));
  const update = () => {
    const counts = engine.counts(filter);
    const most = Math.max(1, ...counts);
    const chosen = engine.active.get(filter.key);
    rows.forEach((row, k) => {
      row.number.replaceChildren(count(counts[k]));
      row.button.style.setProperty("--bar", `${(100 * counts[k]) / most}%`);
      row.button.classList.toggle("empty", !counts[k]);
      row.button.setAttribute("aria-pressed", String(Boolean(chosen?.has(k))));
      row.button.setAttribute("aria-label", shown(`${filter.title}: ${row.option.name}, ${images(counts[k])}`));
      row.button.hidden = row.option.name === NONE && !counts[k] && !chosen?.has(k);
    });
  };
  return { node: list, update };
}

/** Two sliders under a histogram. */
function rangeFacet(engine, filter, change) {
  const { low, high } = filter;
  const bars = Array.from({ length: BINS }, () => el("i"));
  const valueAt = (step) => (step === 0 ? low : step === STEPS ? high : Number((low + ((high - low) * step) / STEPS).toPrecision(10)));
  const stepAt = (value) => (high > low ? Math.round(((value - low) / (high - low)) * STEPS) : 0);
  const text = (value) => (filter.share ? percent(value) : short(value));
  const [from, to] = ["least", "greatest"].map((end) =>
    el("input", { type: "range", min: 0, max: STEPS, step: 1, class: end, "aria-label": shown(`${filter.title}, ${end}`), oninput: moved }),
  );
  const ends = [el("span"), el("span")];
  const node = el("div", { class: `range ${filter.side ?? ""}` }, el("div", { class: "histogram", "aria-hidden": "true" }, ...bars), el("div", { class: "sliders" }, from, to), el("div", { class: "range-ends", "aria-hidden": "true" }, ...ends));
  from.disabled = to.disabled = high <= low;

  function moved(event) {
    let [x, y] = [Number(from.value), Number(to.value)];
    if (x > y) [x, y] = event.target === from ? [x, x] : [y, y];
    change(() => engine.set(filter.key, x === 0 && y === STEPS ? null : [valueAt(x), valueAt(y)]));
  }

  function update() {
    const counts = engine.counts(filter);
    const most = Math.max(1, ...counts);
    const [x, y] = engine.active.get(filter.key) ?? [low, high];
    bars.forEach((bar, k) => {
      bar.style.height = counts[k] ? `${Math.max(4, (100 * counts[k]) / most)}%` : "0";
      const middle = low + ((k + 0.5) / BINS) * (high - low);
      bar.classList.toggle("off", middle < x || middle > y);
    });
    [from.value, to.value] = [stepAt(x), stepAt(y)];
    [from, to].forEach((input, k) => {
      input.setAttribute("aria-valuetext", text([x, y][k]));
      ends[k].replaceChildren(text([x, y][k]));
    });
  }
  return { node, update };
}

/** A field for words. */
function textFacet(engine, filter, change) {
  let timer = 0;
  const take = () => {
    clearTimeout(timer);
    timer = 0;
    if ((engine.active.get(filter.key) ?? "") !== input.value) change(() => engine.set(filter.key, input.value));
  };
  const input = el("input", {
    type: "search",
    class: "words",
    "aria-label": shown(filter.title),
    placeholder: "words",
    spellcheck: "false",
    autocomplete: "off",
    onchange: take,
    oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(take, 120);
    },
  });
  const update = () => {
    const value = engine.active.get(filter.key) ?? "";
    if (!timer && input.value.trim() !== value.trim()) input.value = value;
  };
  return { node: input, update };
}

const FACETS = { set: setFacet, range: rangeFacet, text: textFacet };

/** All filters but cell and label, which are the two figures. */
class Sidebar {
  constructor(engine, change) {
    this.engine = engine;
    this.change = change;
    this.folded = new Map();
    this.list = el("div", { class: "facets" });
    this.node = el("details", { class: "sidebar", open: true }, el("summary", { class: "more" }, "More filters"), this.list);
  }

  /** Lay the filters out anew, for the models that are now compared. */
  build() {
    const { engine, change } = this;
    const all = [...engine.filters.values()].filter((filter) => filter.key !== "cell" && filter.key !== "label");
    const cue = all.filter((filter) => filter.key === "col.cue" || filter.key === "col.split");
    const own = all.filter((filter) => !filter.column);
    const rest = all.filter((filter) => filter.column && !cue.includes(filter));
    this.facets = [...cue, ...own, ...rest].map((filter) => {
      const facet = FACETS[filter.kind](engine, filter, change);
      const open = this.folded.get(filter.key) ?? (!rest.includes(filter) || engine.active.has(filter.key));
      const heading = el("summary", {}, filter.side ? mark(filter.side) : null, el("span", {}, filter.title));
      const node = el("details", { class: "facet", open }, heading, facet.node);
      node.addEventListener("toggle", () => {
        this.folded.set(filter.key, node.open);
        if (node.open) facet.update();
      });
      return { ...facet, details: node };
    });
    const first = rest.length && this.facets[cue.length + own.length].details;
    this.list.replaceChildren(...this.facets.flatMap(({ details }) => (details === first ? [el("h3", {}, "Metadata"), details] : [details])));
  }

  update() {
    for (const facet of this.facets) if (facet.details.open) facet.update();
  }
}

/** What a chosen value of a filter is called on its chip. */
function chipText(engine, filter, value) {
  const [a, b] = [engine.a.name, engine.b.name];
  const model = filter.side === "a" ? a : b;
  if (filter.kind === "text") return filter.key === "words" ? `wrote \u201c${value}\u201d` : `${filter.title}: \u201c${value}\u201d`;
  if (filter.kind === "range") {
    const [low, high] = value;
    const ends = filter.share ? `${fixed(low, 0)} to ${percent(high)}` : `${short(low)} to ${short(high)}`;
    if (filter.key === "share") return `student's share ${ends}`;
    return filter.side ? `${model} ${ends} sure` : `${filter.title}: ${ends}`;
  }
  const name = filter.options[value].name;
  if (filter.key === "cell") return ["both right", `only ${a}`, `only ${b}`, "neither right"][value];
  if (filter.key === "label") return `label ${name}`;
  if (filter.key === "gate") return `gate ${name}`;
  return filter.side ? `${model} says ${name === NONE ? "no label" : name}` : `${filter.title}: ${name}`;
}

/** How many are selected, and a chip for each thing chosen. */
class Chips {
  constructor(engine, change) {
    this.engine = engine;
    this.change = change;
    this.status = el("p", { class: "status", role: "status" });
    this.list = el("ul", { class: "chips", "aria-label": "Filters that are on" });
    this.clear = el("button", { type: "button", class: "plain clear", onclick: () => change(() => engine.active.clear()) }, "Clear all");
    this.node = el("div", { class: "chips-bar" }, this.status, this.list, this.clear);
  }

  update() {
    const { engine, change } = this;
    const inside = this.list.contains(this.list.ownerDocument.activeElement);
    const place = inside ? [...this.list.querySelectorAll("button")].indexOf(this.list.ownerDocument.activeElement) : 0;
    const chips = [];
    for (const [key, filter] of engine.filters) {
      const value = engine.active.get(key);
      if (value === undefined) continue;
      for (const one of filter.kind === "set" ? [...value].sort((x, y) => x - y) : [value]) {
        const text = chipText(engine, filter, one);
        const remove = () => change(() => (filter.kind === "set" ? engine.toggle(key, one) : engine.set(key, null)));
        chips.push(el("li", {}, el("button", { type: "button", class: "chip", "aria-label": shown(`Remove filter: ${text}`), onclick: remove }, el("span", {}, text), icon("wrong"))));
      }
    }
    this.list.replaceChildren(...chips);
    this.clear.hidden = chips.length < 1;
    const words = `${ofAll(engine.selection.length, engine.n)}`;
    if (this.status.textContent !== words) this.status.replaceChildren(words);
    if (inside) (this.list.querySelectorAll("button")[Math.min(place, chips.length - 1)] ?? this.list.closest(".emx")?.querySelector(".sort"))?.focus();
  }
}

// ---------------------------------------------------------------------------------------- gallery

/** The selection as pictures; only those in sight are in the document. */
class Gallery {
  constructor(engine, host, open) {
    this.engine = engine;
    this.host = host;
    this.open = open;
    this.cursor = 0;
    this.tiles = new Map();
    this.space = el("div", { class: "space", role: "list", onkeydown: (event) => this.#key(event) });
    this.empty = el("p", { class: "nothing" });
    this.node = el("div", { class: "gallery" }, this.empty, this.space);
    this.draw = inNextFrame(() => this.#draw());
    this.sizes = new ResizeObserver(() => this.#layout());
    this.sizes.observe(this.node);
    document.addEventListener("scroll", this.draw, { capture: true, passive: true });
    window.addEventListener("resize", this.draw, { passive: true });
  }

  stop() {
    this.sizes.disconnect();
    document.removeEventListener("scroll", this.draw, { capture: true });
    window.removeEventListener("resize", this.draw);
  }

  update() {
    const { engine } = this;
    this.cursor = 0;
    this.node.scrollTop = 0;
    this.#clear();
    this.space.setAttribute("aria-label", `Pictures: ${images(engine.selection.length)}`);
    this.empty.hidden = engine.selection.length > 0;
    this.empty.replaceChildren(engine.n ? "No image passes all filters. Remove one of them." : "There are no images to show.");
    this.#layout();
  }

  #clear() {
    for (const [place, tile] of this.tiles) this.#remove(place, tile);
  }

  #remove(place, tile) {
    this.host.forget?.(tile.row);
    tile.node.remove();
    this.tiles.delete(place);
  }

  #layout() {
    const width = this.space.clientWidth;
    if (!width) return;
    const least = width < 420 ? 100 : 122;
    const columns = Math.max(2, Math.floor((width + GAP) / (least + GAP)));
    const side = (width - GAP * (columns - 1)) / columns;
    const changed = columns !== this.columns || side !== this.side;
    Object.assign(this, { columns, side, step: side + 66 + GAP });
    this.space.style.height = `${Math.max(0, Math.ceil(this.engine.selection.length / columns) * this.step - GAP)}px`;
    if (changed) this.#clear();
    this.#draw();
  }

  #draw() {
    const { selection } = this.engine;
    if (!this.columns || !selection) return;
    const { top } = this.space.getBoundingClientRect();
    const clip = this.node.getBoundingClientRect();
    const from = Math.max(clip.top, 0) - top;
    const to = Math.min(clip.bottom, window.innerHeight) - top;
    const first = Math.max(0, Math.floor(from / this.step) - 1) * this.columns;
    const last = to < from ? first : Math.min(selection.length, (Math.ceil(to / this.step) + 1) * this.columns);
    const wanted = (place) => (place >= first && place < last) || place === this.cursor;
    for (const [place, tile] of this.tiles) if (!wanted(place) || place >= selection.length) this.#remove(place, tile);
    if (this.cursor < selection.length) this.#add(this.cursor);
    for (let place = first; place < last; place++) this.#add(place);
  }

  #add(place) {
    if (this.tiles.has(place)) return;
    const { engine } = this;
    const row = engine.selection[place];
    const [a, b] = [engine.a, engine.b];
    const label = engine.classes[engine.labels[row]];
    const says = (model) => engine.classes[model.predicted[row]]?.name ?? "no label";
    const verdict = (model) => (model.right[row] ? "right" : "wrong");
    const line = (side, model) => el("span", { class: `says ${verdict(model)}` }, mark(side), el("span", { class: "cut" }, says(model)), icon(verdict(model)));
    const words = [a, b].map((model) => `${model.name} says ${says(model)}, ${verdict(model)}`);
    const button = el(
      "button",
      {
        type: "button",
        class: "tile-button",
        tabindex: place === this.cursor ? 0 : -1,
        title: shown(engine.data.ids[row]),
        "aria-label": shown(`${engine.data.ids[row]}: label ${label.name}; ${words.join("; ")}; disagreement ${engine.disagreement[row].toFixed(2)}`),
        onclick: () => this.open(place),
        onfocus: () => this.#point(place),
      },
      picture(this.host, engine, row, false),
      el("span", { class: "tile-label" }, swatch(label), el("span", { class: "cut" }, label.name)),
      line("a", a),
      line("b", b),
    );
    const node = el("div", { class: "tile", role: "listitem", "aria-posinset": place + 1, "aria-setsize": engine.selection.length }, button);
    const x = (place % this.columns) * (this.side + GAP);
    const y = Math.floor(place / this.columns) * this.step;
    node.style.transform = `translate(${x}px, ${y}px)`;
    node.style.width = `${this.side}px`;
    this.space.append(node);
    this.tiles.set(place, { node, button, row });
  }

  #point(place) {
    if (place === this.cursor) return;
    const before = this.tiles.get(this.cursor);
    if (before) before.button.tabIndex = -1;
    this.cursor = place;
    const now = this.tiles.get(place);
    if (now) now.button.tabIndex = 0;
  }

  /** Move the keyboard to a picture and bring it into sight. */
  focus(place) {
    if (!this.engine.selection.length) return;
    this.#add(place);
    this.#point(place);
    const { button, node } = this.tiles.get(place);
    button.focus({ preventScroll: true });
    node.scrollIntoView({ block: "nearest" });
    this.draw();
  }

  #key(event) {
    const { columns, cursor } = this;
    const page = columns * Math.max(1, Math.floor((Math.min(this.node.clientHeight, window.innerHeight) - 60) / this.step));
    const last = this.engine.selection.length - 1;
    const to = {
      ArrowRight: cursor + 1,
      ArrowLeft: cursor - 1,
      ArrowDown: cursor + columns,
      ArrowUp: cursor - columns,
      PageDown: Math.min(last, cursor + page),
      PageUp: Math.max(0, cursor - page),
      Home: 0,
      End: last,
    }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (to >= 0 && to <= last) this.focus(to);
  }
}

/** A picture that comes when it is there; words in its place where it is missing. */
function picture(host, engine, row, large) {
  const frame = el("span", { class: "picture" });
  const missing = () => {
    frame.classList.add("missing");
    frame.replaceChildren(el("span", {}, "picture missing"));
  };
  if (engine.missing.has(row)) {
    missing();
    return frame;
  }
  const img = el("img", { alt: large ? shown(`Picture ${engine.data.ids[row]}`) : "", decoding: "async", draggable: "false" });
  const show = (url) => {
    if (!url) return missing();
    img.addEventListener("error", missing);
    img.src = url;
    frame.append(img);
  };
  const found = host.picture(row, large);
  if (found instanceof Promise) found.then(show);
  else show(found);
  return frame;
}

// ------------------------------------------------------------------------------------- one image

/** One image: what each model says of it, in words and numbers. */
class Detail {
  constructor(engine, host, moved, closed) {
    Object.assign(this, { engine, host, moved });
    this.place = null;
    this.position = el("span", { class: "position", role: "status" });
    this.heading = el("h2", { class: "detail-title" });
    const step = (by, name, text) => el("button", { type: "button", class: "plain round", "aria-label": text, title: text, onclick: () => this.step(by) }, icon(name));
    this.back = step(-1, "back", "Previous picture (arrow left)");
    this.forth = step(1, "forth", "Next picture (arrow right)");
    const close = el("button", { type: "button", class: "plain round", "aria-label": "Close (Escape)", title: "Close (Escape)", onclick: () => this.node.close() }, icon("wrong"));
    this.body = el("div", { class: "detail-body" });
    this.node = el(
      "dialog",
      { class: "detail", "aria-label": "One image", onkeydown: (event) => this.#key(event), onclick: (event) => event.target === this.node && this.node.close() },
      el("div", { class: "detail-frame" }, el("header", { class: "detail-head" }, this.back, this.forth, this.position, this.heading, close), this.body),
    );
    this.node.addEventListener("close", () => {
      const place = this.place;
      this.place = null;
      this.body.replaceChildren();
      closed(place);
    });
  }

  show(place) {
    const { engine } = this;
    const row = engine.selection[place];
    this.place = place;
    this.back.disabled = place === 0;
    this.forth.disabled = place === engine.selection.length - 1;
    this.position.replaceChildren(`${count(place + 1)} of ${count(engine.selection.length)}`);
    this.heading.replaceChildren(shown(engine.data.ids[row]));
    this.body.replaceChildren(this.#left(row), this.#right(row));
    this.body.scrollTop = 0;
    if (!this.node.open) {
      this.node.showModal();
      this.forth.focus();
    }
    this.moved(row);
  }

  step(by) {
    const to = this.place + by;
    if (to >= 0 && to < this.engine.selection.length) this.show(to);
  }

  #key(event) {
    const last = this.engine.selection.length - 1;
    const to = { ArrowLeft: this.place - 1, ArrowRight: this.place + 1, Home: 0, End: last }[event.key];
    event.stopPropagation();
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (to >= 0 && to <= last && to !== this.place) this.show(to);
  }

  #left(row) {
    const { engine } = this;
    const { data } = engine;
    const label = engine.classes[engine.labels[row]];
    const facts = [["split", data.splits.options[engine.splits[row]]]];
    for (const column of engine.columns) {
      const value = engine.metadata(column, row);
      if (column.name !== "split" && value !== "") facts.push([column.name, typeof value === "number" ? String(Number(value.toPrecision(6))) : value]);
    }
    return el(
      "div",
      { class: "detail-left" },
      picture(this.host, engine, row, true),
      el("p", { class: "detail-label" }, el("span", {}, "label"), swatch(label), el("b", {}, label.name)),
      el("p", { class: "note" }, `disagreement ${engine.disagreement[row].toFixed(2)} (Jensen-Shannon, 0 to 1)`),
      lines(facts),
    );
  }

  #right(row) {
    const { engine } = this;
    const { data, a, b, models, writer } = engine;
    const parts = [el("h3", {}, "What each model says"), this.#bars(row, [[a, "a"], [b, "b"]])];
    if (writer || data.reasons) {
      const said = el("div", { class: "said" });
      for (const model of new Set([a, b, writer])) {
        if (model?.answers) said.append(quote(`${model.name} answered`, model.answers[row] || "(nothing)"));
      }
      if (data.reasons?.[row]) said.append(quote("Its reason", data.reasons[row]));
      parts.push(said);
    }
    if (data.gate !== null) {
      const gate = models[data.gate];
      const student = data.student === null ? null : models[data.student];
      const vlm = data.vlm === null ? null : models[data.vlm];
      const columns = [student, vlm === a || vlm === b ? null : vlm, gate].filter(Boolean).map((model) => [model, "own"]);
      parts.push(el("h3", {}, student ? "Student and gate" : "The gate"), this.#bars(row, columns));
      if (engine.share) parts.push(contributions(engine.share[row], student, vlm));
    }
    const seen = new Set([a, b, ...[data.student, data.vlm, data.gate].map((k) => (k === null ? null : models[k]))]);
    parts.push(el("h3", {}, "Where it comes from"));
    for (const model of seen) {
      if (model) parts.push(el("details", { class: "provenance" }, el("summary", {}, model.name), model.provenance.length ? lines(model.provenance) : el("p", { class: "note" }, "nothing recorded")));
    }
    return el("div", { class: "detail-right" }, ...parts);
  }

  /** Distributions of some models over the classes, as bars on one scale. */
  #bars(row, columns) {
    const { engine } = this;
    const size = engine.classes.length;
    const head = columns.map(([model, side]) => {
      const name = engine.classes[model.predicted[row]]?.name ?? "no label";
      const verdict = model.right[row] ? "right" : "wrong";
      return el("th", { scope: "col" }, el("span", { class: "bars-model" }, side === "own" ? el("i", { class: "mark own", vars: colours(model.colour) }) : mark(side), el("span", {}, model.name)), el("span", { class: `bars-verdict ${verdict}` }, name, icon(verdict), el("span", { class: "unseen" }, verdict)));
    });
    const body = engine.classes.map((label, k) => {
      const isLabel = engine.labels[row] === k;
      const cells = columns.map(([model, side]) => {
        const p = model.p[row * size + k];
        const vars = { "--p": `${100 * p}%`, ...(side === "own" ? colours(model.colour) : {}) };
        const bar = el("span", { class: `bar ${side} ${model.predicted[row] === k ? "top" : ""}`, vars, "aria-hidden": "true" });
        return el("td", {}, el("span", { class: "bar-line" }, bar, el("span", { class: "bar-number" }, p >= 0.9995 ? "100" : fixed(p, 1))));
      });
      return el("tr", { class: isLabel ? "is-label" : "" }, el("th", { scope: "row" }, el("span", { class: "bars-class" }, swatch(label), el("span", {}, label.name), isLabel ? el("span", { class: "tag" }, "label") : null)), ...cells);
    });
    return el(
      "table",
      { class: "bars", vars: { "--columns": columns.length } },
      el("caption", { class: "unseen" }, "Probability of each class in per cent"),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", { class: "unseen" }, "class")), ...head)),
      el("tbody", {}, ...body),
    );
  }
}

function quote(title, text) {
  return el("figure", { class: "quote" }, el("figcaption", {}, title), el("blockquote", {}, text));
}

function lines(facts) {
  return el("dl", { class: "lines" }, ...facts.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]));
}

/** The two shares of the gate's decision, as one bar. */
function contributions(share, student, vlm) {
  const sides = [
    [student?.name ?? "student", share, student],
    [vlm?.name ?? "VLM", 1 - share, vlm],
  ];
  const part = ([, value, model], k) => el("span", { class: `part ${model ? "coloured" : `plain-${k}`}`, vars: { "flex-grow": String(Math.max(value, 0.001)), ...(model ? colours(model.colour) : {}) } }, value >= 0.12 ? percent(value) : "");
  return el(
    "div",
    { class: "contributions" },
    el("p", {}, "Share in the gate's decision: ", sides.map(([name, value]) => `${name} ${percent(value)}`).join(", ")),
    el("div", { class: "parts", "aria-hidden": "true" }, ...sides.map(part)),
  );
}

// -------------------------------------------------------------------------------------- the whole

/**
 * Draw the explorer into `root`. `host` gives pictures and keeps the view: picture(row, large) is a
 * URL, null, or a promise of one; save(view) is called after each change; page says where it is.
 */
function mount(root, data, host) {
  const engine = new Engine(data);
  root.classList.add("emx", host.page ? "emx-page" : "emx-widget");
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  root.setAttribute("data-jp-suppress-context-menu", "true");

  const gallery = new Gallery(engine, host, (place) => detail.show(place));
  const detail = new Detail(engine, host, opened, closed);
  const map = new FourWayMap(engine, change);
  const dots = new LabelDots(engine, change);
  const chips = new Chips(engine, change);
  const sidebar = new Sidebar(engine, change);

  const selects = ["A", "B"].map((side, k) =>
    el("select", { "aria-label": `Model ${side}`, onchange: (event) => choose(k, Number(event.target.value)) }, ...engine.models.map((model, place) => el("option", { value: place }, model.name))),
  );
  const swap = el("button", { type: "button", class: "plain round", "aria-label": "Swap the two models", title: "Swap the two models", onclick: () => change(() => engine.swap(), true) }, icon("swap"));
  const missing = data.missing.length ? el("p", { class: "note missing-note" }, `${images(data.missing.length)} without a picture`) : null;
  const header = el(
    "header",
    { class: "top" },
    el(host.page ? "h1" : "h2", { class: "main-title" }, "Where two models disagree"),
    el("div", { class: "models" }, el("label", { class: "model" }, mark("a"), selects[0]), swap, el("label", { class: "model" }, mark("b"), selects[1])),
    missing,
  );

  const sort = el("select", { class: "sort", "aria-label": "Sort by", onchange: () => change(() => sortBy(sort.value)) }, ...SORTS.map((name) => el("option", { value: name })));
  const turn = el("button", { type: "button", class: "plain round", onclick: () => change(() => (engine.down = !engine.down)) });
  const csv = el("button", { type: "button", class: "plain", onclick: download }, icon("save"), el("span", {}, "CSV"));
  csv.setAttribute("aria-label", "Download the selection as CSV");
  csv.setAttribute("title", "Download the selection as CSV");
  const tools = el("div", { class: "tools" }, el("label", { class: "sort-label" }, el("span", {}, "Sort by"), sort), turn, csv);
  const keys = el("p", { class: "note keys-note" }, "Keyboard: Tab goes from filter to filter, arrow keys go from picture to picture, Enter opens one; there, left and right show the next and Escape closes.");

  const bar = el("div", { class: "bar-row" }, chips.node, tools);
  const main = el("div", { class: "main" }, sidebar.node, gallery.node);
  root.replaceChildren(header, el("div", { class: "figures" }, map.node, dots.node), bar, main, keys, detail.node);

  const sizes = new ResizeObserver(() => {
    const wide = root.clientWidth >= 820;
    if (wide !== root.classList.contains("wide") || !sized) sidebar.node.open = wide;
    sized = true;
    root.classList.toggle("wide", wide);
    map.place();
  });
  let sized = false;

  function sortBy(name) {
    engine.sort = name;
    engine.down = name !== "id";
  }

  function choose(side, place) {
    change(() => {
      const [a, b] = [engine.placeA, engine.placeB];
      if (place === (side ? a : b)) engine.swap();
      else engine.setModels(side ? a : place, side ? place : b);
    }, true);
  }

  function opened(row) {
    engine.open = row;
    host.save(engine.view);
  }

  function closed(place) {
    engine.open = null;
    host.save(engine.view);
    if (place !== null && place < engine.selection.length) gallery.focus(place);
  }

  /** Do something to the engine and show what follows. models: the two models may be others. */
  function change(work, models = false) {
    work();
    engine.open = null;
    refresh(models);
    host.save(engine.view);
  }

  function refresh(models) {
    const { a, b } = engine;
    engine.apply();
    if (models) {
      for (const [side, model] of [["a", a], ["b", b]]) {
        for (const [name, value] of Object.entries(model.colour)) root.style.setProperty(`--${side}-${name.replace("_", "-")}`, value);
      }
      selects[0].value = engine.placeA;
      selects[1].value = engine.placeB;
      const names = ["disagreement", `confidence of ${a.name}`, `confidence of ${b.name}`, "id"];
      [...sort.options].forEach((option, k) => option.replaceChildren(shown(names[k])));
      sidebar.build();
    }
    sort.value = engine.sort;
    turn.replaceChildren(icon(engine.down ? "down" : "up"));
    const order = engine.down ? "Greatest first; turn the order" : "Least first; turn the order";
    turn.setAttribute("aria-label", order);
    turn.setAttribute("title", order);
    csv.disabled = !engine.selection.length;
    map.update();
    dots.update();
    chips.update();
    sidebar.update();
    gallery.update();
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
    const row = engine.open;
    refresh(true);
    const place = row === null ? -1 : engine.selection.indexOf(row);
    if (place < 0) engine.open = null;
    if (place >= 0) detail.show(place);
    else if (detail.node.open) detail.node.close();
  }

  sizes.observe(root);
  show(host.view);
  return {
    show: (view) => view !== engine.view && show(view),
    stop() {
      sizes.disconnect();
      gallery.stop();
    },
  };
}

// --------------------------------------------------------------------------------------- the page

/** Draw the page from what is embedded in it; the view lives in the URL's hash. */
function openPage() {
  const embedded = (id) => JSON.parse(document.getElementById(id).textContent);
  const root = document.getElementById("emx");
  let where = null;
  const host = {
    page: true,
    view: location.hash.length > 1 ? location.hash : embedded("emx-view"),
    picture(row) {
      where ??= embedded("emx-pictures");
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
  requestAnimationFrame(() => setTimeout(() => (root.dataset.ready = Math.round(performance.now()))));
}

// ------------------------------------------------------------------------------------- the widget

/** Draw the widget; pictures are fetched from the kernel as they come into sight. */
function render({ model, el: root }) {
  const data = JSON.parse(new TextDecoder().decode(model.get("_data")));
  const urls = new Map(); // row -> URL of a small picture, the one used last at the end
  const waiting = new Map(); // "row" or "row large" -> functions that take its URL
  let [queue, timer, large] = [new Set(), 0, null];

  const ask = (rows, isLarge) => model.send({ type: "pictures", rows, large: isLarge });

  function flush() {
    timer = 0;
    const rows = [...queue];
    queue = new Set();
    for (let at = 0; at < rows.length; at += 64) ask(rows.slice(at, at + 64), false);
  }

  function wait(key, start) {
    return new Promise((resolve) => {
      const others = waiting.get(key);
      if (others) others.push(resolve);
      else {
        waiting.set(key, [resolve]);
        start();
      }
    });
  }

  function received(message, buffers) {
    if (message?.type !== "pictures") return;
    message.rows.forEach((row, k) => {
      const key = message.large ? `${row} large` : String(row);
      const takers = waiting.get(key);
      if (!takers) return;
      waiting.delete(key);
      const bytes = buffers[k];
      const url = bytes?.byteLength ? URL.createObjectURL(new Blob([bytes], { type: "image/webp" })) : null;
      if (message.large) {
        if (large) URL.revokeObjectURL(large);
        large = url;
      } else {
        urls.set(row, url);
        for (const [old, its] of urls) {
          if (urls.size <= KEPT_PICTURES) break;
          urls.delete(old);
          if (its) URL.revokeObjectURL(its);
        }
      }
      takers.forEach((take) => take(url));
    });
  }

  const host = {
    page: false,
    view: model.get("view"),
    picture(row, isLarge) {
      if (isLarge) return wait(`${row} large`, () => ask([row], true));
      if (urls.has(row)) {
        const url = urls.get(row);
        urls.delete(row);
        urls.set(row, url);
        return url;
      }
      return wait(String(row), () => {
        queue.add(row);
        timer ||= setTimeout(flush, 40);
      });
    },
    forget(row) {
      if (queue.delete(row)) waiting.delete(String(row));
    },
    save(view) {
      model.set("view", view);
      clearTimeout(saving);
      saving = setTimeout(() => model.save_changes(), 60);
    },
  };
  let saving = 0;
  const explorer = mount(root, data, host);
  const changed = () => explorer.show(model.get("view"));
  model.on("msg:custom", received);
  model.on("change:view", changed);
  return () => {
    model.off("msg:custom", received);
    model.off("change:view", changed);
    explorer.stop();
    for (const url of urls.values()) if (url) URL.revokeObjectURL(url);
    if (large) URL.revokeObjectURL(large);
  };
}

export default { render };
