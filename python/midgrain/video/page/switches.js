// The switches: what is set is what the server says; a change that it refuses goes back.

const LEAST_SEGMENTS = 10;
const byId = (id) => document.getElementById(id);

export class Switches {
  constructor() {
    this.settings = null;
    this.given = "";
    this.most = 2000;
    this.methods = [];
    this.classes = [];
    this.waiting = {};
    this.sending = false;
    this.typing = false;
    const on = (id, event, change) => byId(id).addEventListener(event, () => this.change(change()));
    byId("switches").addEventListener("submit", (event) => event.preventDefault());
    on("method", "change", () => ({ method: byId("method").value || null }));
    on("alpha", "input", () => ({ alpha: Number(byId("alpha").value) / 100 }));
    on("n-segments", "input", () => ({ n_segments: this.segments(Number(byId("n-segments").value)) }));
    on("n-segments-auto", "change", () => ({
      n_segments: byId("n-segments-auto").checked ? null : this.segments(Number(byId("n-segments").value)),
    }));
    on("contours", "change", () => ({ contours: byId("contours").checked }));
    on("side-by-side", "change", () => ({ side_by_side: byId("side-by-side").checked }));
    on("target-predicted", "click", () => ({ target: null }));
    const target = byId("target-name");
    target.addEventListener("input", () => (this.typing = true));
    target.addEventListener("change", () => this.changeTarget());
    target.addEventListener("blur", () => this.stopTyping());
    target.addEventListener("focus", () => target.select());
  }

  // What there is to choose from.
  async load() {
    const [methods, classes] = await Promise.all(
      ["methods", "classes"].map(async (path) => {
        const answer = await fetch(path);
        if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
        return answer.json();
      }),
    );
    this.methods = methods;
    this.classes = classes;
    const list = byId("classes");
    list.replaceChildren(...classes.map((name, index) => new Option("", `${name} (${index})`)));
    this.listMethods();
    this.show();
  }

  hello(message) {
    this.given = message.given;
    this.most = Math.min(2000, message.max_segments);
    this.listMethods();
    this.update(message.settings);
  }

  listMethods() {
    const select = byId("method");
    const entries = [];
    if (!this.method(this.given)) entries.push(new Option(this.given || "as given", ""));
    for (const [slow, label] of [[false, "Quick"], [true, "Many passes: slow on a stream"]]) {
      const group = document.createElement("optgroup");
      group.label = label;
      for (const { name, refused, slow: takesLong } of this.methods) {
        if (takesLong !== slow) continue;
        const option = new Option(refused ? `${name}: not for this network` : name, name);
        option.disabled = Boolean(refused);
        option.title = refused ?? "";
        group.append(option);
      }
      if (group.children.length) entries.push(group);
    }
    select.replaceChildren(...entries);
    select.disabled = !this.methods.length;
    this.show();
  }

  method(name) {
    return this.methods.find((each) => each.name === name);
  }

  update(settings, refused = {}) {
    for (const name of Object.keys(settings)) if (settings[name] !== this.settings?.[name]) this.complain(name, "");
    this.settings = settings;
    this.show();
    for (const [name, why] of Object.entries(refused)) this.complain(name, why);
    if ("method" in refused) this.load();
  }

  // The method that the stream is to be explained with.
  get wanted() {
    return this.settings?.method ?? this.given;
  }

  // Superpixels grow by the same factor with every step of the slider.
  segments(step) {
    const value = LEAST_SEGMENTS * (this.most / LEAST_SEGMENTS) ** (step / 100);
    return Number(value.toPrecision(2));
  }

  step(segments) {
    const step = (100 * Math.log(segments / LEAST_SEGMENTS)) / Math.log(this.most / LEAST_SEGMENTS);
    return Math.round(Math.min(100, Math.max(0, step)));
  }

  show() {
    if (!this.settings) return;
    const now = { ...this.settings, ...this.waiting };
    const method = this.method(now.method ?? this.given);
    byId("method").value = method?.name ?? "";
    byId("method-line").textContent = method?.line ?? "";
    byId("alpha").value = Math.round(100 * now.alpha);
    byId("alpha-value").textContent = `${Math.round(100 * now.alpha)} %`;
    const automatic = now.n_segments === null;
    byId("n-segments-auto").checked = automatic;
    if (!automatic) byId("n-segments").value = this.step(now.n_segments);
    byId("n-segments-value").textContent = automatic ? "automatic" : String(now.n_segments);
    byId("contours").checked = now.contours;
    byId("side-by-side").checked = now.side_by_side;
    if (!this.typing) byId("target-name").value = now.target === null ? "" : this.className(now.target);
  }

  className(index) {
    return this.classes[index] === undefined ? String(index) : `${this.classes[index]} (${index})`;
  }

  changeTarget() {
    const text = byId("target-name").value.trim();
    this.typing = false;
    if (text === "" || text.toLowerCase() === "predicted") return this.change({ target: null });
    const number = /(?:^|\()(\d+)\)?$/.exec(text);
    const names = this.classes.map((name) => name.toLowerCase());
    const index = number ? Number(number[1]) : names.indexOf(text.toLowerCase());
    if (index >= 0) return this.change({ target: index });
    const near = this.classes.filter((name) => name.toLowerCase().includes(text.toLowerCase())).slice(0, 3);
    const hint = near.length ? `; there are ${near.join(", ")}` : "";
    this.complain("target", `there is no class “${text}”${hint}`);
    this.show();
  }

  stopTyping() {
    this.typing = false;
    this.show();
  }

  complain(setting, text) {
    const place = document.querySelector(`[data-setting="${setting}"] .error`) ?? byId("method-error");
    place.textContent = text;
  }

  // One request at a time; what is changed in the meantime goes with the next one.
  async change(changes) {
    Object.assign(this.waiting, changes);
    for (const setting of Object.keys(changes)) this.complain(setting, "");
    this.show();
    if (this.sending) return;
    this.sending = true;
    while (Object.keys(this.waiting).length) {
      const sent = { ...this.waiting };
      await this.send(sent);
      for (const [name, value] of Object.entries(sent)) if (this.waiting[name] === value) delete this.waiting[name];
      this.show();
    }
    this.sending = false;
  }

  async send(changes) {
    const names = Object.keys(changes);
    try {
      const answer = await fetch("settings", {
        method: "PATCH",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(changes),
      });
      const said = await answer.json();
      if (answer.ok) this.settings = said;
      else this.complain(names.find((name) => said.error.startsWith(`${name}:`)) ?? names[0], said.error);
    } catch {
      this.complain(names[0], "the server does not answer");
    }
  }
}
