// The probabilities of the most probable classes over the last minute.

// Of the colours c0, c1, ... in the style sheet; every line has its own dashes, too.
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 2], [1, 2]];
const SPAN = 60;
// Until a minute has passed, the shortest of these that shows everything.
const SPANS = [10, 20, 40, SPAN];
const MOST_POINTS = 600;
const SPACING = 0.1;
const OF_NOW = 2;
const SVG = "http://www.w3.org/2000/svg";

export class Plot {
  constructor(canvas, legend) {
    this.canvas = canvas;
    this.legend = legend;
    this.points = [];
    this.labels = new Map();
    this.styles = new Map();
    this.items = new Map();
    this.due = false;
    new ResizeObserver(() => this.refresh()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.refresh());
  }

  reset(history, labels) {
    this.labels = new Map(Object.entries(labels).map(([index, label]) => [Number(index), label]));
    this.points = history.map(([, seconds, classes]) => ({ seconds, classes: new Map(classes) }));
    this.refresh();
  }

  add(seconds, classes) {
    if (seconds === null || !classes.length) return;
    const last = this.points.at(-1);
    const since = last ? seconds - last.seconds : Infinity;
    if (since >= 0 && since < SPACING) return;
    // A source that began again: its clock went back.
    if (since < 0) this.points = [];
    for (const each of classes) this.labels.set(each.index, each.label);
    this.points.push({ seconds, classes: new Map(classes.map((each) => [each.index, each.probability])) });
    while (this.points.length > MOST_POINTS || this.points[0].seconds < seconds - SPAN) this.points.shift();
    this.refresh();
  }

  refresh() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.draw();
    });
  }

  // The most probable classes of now, then those with the largest share of what is seen. A class keeps its colour as
  // long as it is among them.
  chosen() {
    const sums = new Map();
    for (const point of this.points)
      for (const [index, value] of point.classes) sums.set(index, (sums.get(index) ?? 0) + value);
    const ranked = [...sums].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([index]) => index);
    const now = [...(this.points.at(-1)?.classes.keys() ?? [])].slice(0, OF_NOW);
    const best = [...new Set([...now, ...ranked])].slice(0, DASHES.length);
    for (const index of this.styles.keys()) if (!best.includes(index)) this.styles.delete(index);
    for (const index of best) {
      if (this.styles.has(index)) continue;
      const taken = new Set(this.styles.values());
      this.styles.set(index, DASHES.findIndex((_, style) => !taken.has(style)));
    }
    return best;
  }

  draw() {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width || !height) return;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(canvas);
    const box = { left: 42, right: width - 6, top: 8, bottom: height - 22 };
    const end = this.points.at(-1)?.seconds ?? 0;
    const since = end - (this.points[0]?.seconds ?? 0);
    const span = SPANS.find((each) => each >= since) ?? SPAN;
    const x = (seconds) => box.right - ((end - seconds) / span) * (box.right - box.left);
    const y = (value) => box.bottom - value * (box.bottom - box.top);
    this.axes(context, style, box, x, y, end, span);
    const best = this.chosen();
    context.save();
    context.beginPath();
    context.rect(box.left, 0, box.right - box.left + 2, height);
    context.clip();
    for (const index of [...best].reverse()) this.line(context, style, index, x, y);
    context.restore();
    this.list(best);
  }

  axes(context, style, box, x, y, end, span) {
    context.font = `12px ${style.fontFamily}`;
    context.fillStyle = style.getPropertyValue("--quiet");
    context.strokeStyle = style.getPropertyValue("--line");
    context.lineWidth = 1;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const value of [0, 0.25, 0.5, 0.75, 1]) {
      const row = Math.round(y(value)) + 0.5;
      context.beginPath();
      context.moveTo(box.left, row);
      context.lineTo(box.right, row);
      context.stroke();
      context.fillText(`${value * 100} %`, box.left - 6, row);
    }
    context.textBaseline = "top";
    for (const ago of [span, span / 2, 0]) {
      context.textAlign = ago === 0 ? "right" : ago === span ? "left" : "center";
      context.fillText(ago === 0 ? "now" : `${ago} s ago`, x(end - ago), box.bottom + 7);
    }
  }

  line(context, look, index, x, y) {
    const style = this.styles.get(index);
    context.strokeStyle = look.getPropertyValue(`--c${style}`);
    context.lineWidth = 2;
    context.lineJoin = "round";
    context.setLineDash(DASHES[style]);
    context.beginPath();
    // Where a class is not among the most probable ones, nothing is known of it: the line has a gap.
    let pen = false;
    let alone = null;
    for (const { seconds, classes } of this.points) {
      const value = classes.get(index);
      if (value === undefined || value === null) {
        if (alone !== null) context.lineTo(x(alone[0]) + 2, y(alone[1]));
        pen = false;
        alone = null;
        continue;
      }
      if (pen) {
        context.lineTo(x(seconds), y(value));
        alone = null;
      } else {
        context.moveTo(x(seconds), y(value));
        alone = [seconds, value];
      }
      pen = true;
    }
    if (alone !== null) context.lineTo(x(alone[0]) + 2, y(alone[1]));
    context.stroke();
    context.setLineDash([]);
  }

  list(best) {
    const now = this.points.at(-1)?.classes ?? new Map();
    for (const [index, item] of this.items) {
      if (best.includes(index) && item.style === this.styles.get(index)) continue;
      item.row.remove();
      this.items.delete(index);
    }
    const ordered = [...best].sort((a, b) => (now.get(b) ?? 0) - (now.get(a) ?? 0));
    ordered.forEach((index, place) => {
      const item = this.items.get(index) ?? this.item(index);
      item.name.textContent = this.labels.get(index) ?? `class ${index}`;
      item.name.title = item.name.textContent;
      const value = now.get(index);
      item.value.textContent = value === undefined || value === null ? "–" : `${(100 * value).toFixed(1)} %`;
      if (this.legend.children[place] !== item.row) this.legend.insertBefore(item.row, this.legend.children[place]);
    });
  }

  item(index) {
    const style = this.styles.get(index);
    const row = document.createElement("li");
    const svg = document.createElementNS(SVG, "svg");
    const line = document.createElementNS(SVG, "line");
    const size = { width: 26, height: 6, viewBox: "0 0 26 6", "aria-hidden": "true" };
    for (const [name, value] of Object.entries(size)) svg.setAttribute(name, value);
    const look = { x1: 0, y1: 3, x2: 26, y2: 3, class: `c${style}` };
    for (const [name, value] of Object.entries(look)) line.setAttribute(name, value);
    if (DASHES[style].length) line.setAttribute("stroke-dasharray", DASHES[style].join(" "));
    svg.append(line);
    const name = document.createElement("span");
    name.className = "name";
    const value = document.createElement("span");
    value.className = "value";
    row.append(svg, name, value);
    const item = { row, name, value, style };
    this.items.set(index, item);
    return item;
  }
}
