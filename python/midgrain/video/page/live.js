// Frames and messages from the server, what they show, and how to come back when it is gone.

import { Plot } from "./plot.js";
import { Switches } from "./switches.js";

const PAUSES = [1, 2, 4, 8, 15];
const byId = (id) => document.getElementById(id);
const show = (id, text) => {
  const place = byId(id);
  if (place.textContent !== text) place.textContent = text;
};
const NONE = "–";
const milliseconds = (seconds) =>
  seconds === null || seconds === undefined ? NONE : seconds < 10 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`;
const percent = (value) => (value === null ? "" : `${(100 * value).toFixed(1)} %`);

class Live {
  constructor() {
    this.screen = byId("screen");
    this.context = this.screen.getContext("2d", { alpha: false });
    this.plot = new Plot(byId("plot"), byId("legend"));
    this.switches = new Switches();
    this.paused = false;
    this.attempts = 0;
    this.timer = null;
    this.ended = null;
    this.windows = [];
    this.latest = 0;
    // Of what was shown, for programs that look at the page.
    this.shown = 0;
    this.buttons();
    this.connect();
  }

  buttons() {
    byId("pause").addEventListener("click", () => this.pause(!this.paused));
    byId("full").addEventListener("click", () => this.fullScreen());
    byId("reconnect").addEventListener("click", () => this.connect());
    document.addEventListener("visibilitychange", () => this.tellPause());
    document.addEventListener("keydown", (event) => {
      const busy = event.target.closest("input, select, button, a, summary, textarea");
      if (busy || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === " ") {
        event.preventDefault();
        this.pause(!this.paused);
      } else if (event.key === "f") this.fullScreen();
    });
  }

  pause(paused) {
    this.paused = paused;
    byId("pause").setAttribute("aria-pressed", String(paused));
    byId("pause").textContent = paused ? "Go on" : "Pause";
    this.tellPause();
    if (this.socket?.readyState === WebSocket.OPEN) this.state(paused ? "paused" : "live");
  }

  // Nobody looks at a hidden page: it needs no frames.
  tellPause() {
    if (this.socket?.readyState === WebSocket.OPEN) this.send({ pause: this.paused || document.hidden });
  }

  async fullScreen() {
    try {
      if (document.fullscreenElement) await document.exitFullscreen();
      else await byId("stage").requestFullscreen();
    } catch {
      this.notice("this browser allows no full screen here");
    }
  }

  state(state, text) {
    byId("state").dataset.state = state;
    show("state-text", text ?? state);
    byId("reconnect").hidden = state !== "lost" && state !== "ended";
  }

  connect() {
    clearTimeout(this.timer);
    if (this.socket) this.socket.onclose = null;
    this.socket?.close();
    this.state("waiting", "connecting");
    const address = new URL("stream", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.search = "";
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (this.socket !== socket) return;
      if (typeof data === "string") this.message(JSON.parse(data));
      else this.frame(data, socket);
    };
    socket.onclose = ({ code }) => this.closed(code);
    this.socket = socket;
    this.ended = null;
    this.latest = 0;
  }

  closed(code) {
    const pause = PAUSES[Math.min(this.attempts, PAUSES.length - 1)];
    this.attempts += 1;
    const why = this.ended ? `stream ended (${this.ended})` : code === 1009 || code === 1008 ? "sent away" : "no connection";
    this.state(this.ended ? "ended" : "lost", `${why}; trying again in ${pause} s`);
    this.timer = setTimeout(() => this.connect(), 1000 * pause);
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  async message(message) {
    if (message.type === "hello") {
      this.attempts = 0;
      show("title", message.title);
      document.title = message.title;
      this.plot.reset(message.history, message.labels);
      this.switches.hello(message);
      this.state(this.paused ? "paused" : "live");
      this.tellPause();
      try {
        await this.switches.load();
      } catch {
        this.notice("what there is to choose from could not be fetched");
      }
    } else if (message.type === "settings") this.switches.update(message.settings, message.refused);
    else if (message.type === "report") this.report(message);
    else if (message.type === "notice") message.messages.forEach((text) => this.notice(text));
    else if (message.type === "error") this.notice(message.message);
    else if (message.type === "end") this.ended = message.why;
  }

  async frame(data, socket) {
    const length = new DataView(data).getUint32(0);
    const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    const acknowledge = () => this.socket === socket && this.send({ ack: facts.id });
    let picture;
    try {
      picture = await createImageBitmap(new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }));
    } catch {
      acknowledge();
      return;
    }
    let drawn = false;
    const draw = () => {
      if (drawn) return;
      drawn = true;
      // Of two pictures under way the second one may be there first.
      if (this.socket === socket && !this.paused && facts.id > this.latest) this.draw(picture, facts);
      picture.close();
      acknowledge();
    };
    requestAnimationFrame(draw);
    // A covered window gets no animation frames, but the stream goes on.
    setTimeout(draw, 250);
  }

  draw(picture, facts) {
    const { screen } = this;
    if (screen.width !== picture.width || screen.height !== picture.height) {
      screen.width = picture.width;
      screen.height = picture.height;
    }
    this.context.drawImage(picture, 0, 0);
    byId("empty").hidden = true;
    const target = facts.target;
    show("target", target ? target.label : facts.explained ? "explained" : "not explained yet");
    show("probability", target ? percent(target.probability) : "");
    const wanted = this.switches.wanted;
    show("method-now", facts.method && wanted && wanted !== facts.method ? `${facts.method}, soon ${wanted}` : facts.method);
    show("number", String(facts.number));
    show("seconds", facts.seconds === null ? NONE : `${facts.seconds.toFixed(2)} s`);
    show("dropped", String(facts.dropped));
    show("skipped", String(facts.skipped));
    show("rate", facts.rate.toFixed(1));
    const label = target ? `The stream, with what speaks for ${target.label}` : "The stream";
    if (screen.getAttribute("aria-label") !== label) screen.setAttribute("aria-label", label);
    this.plot.add(facts.seconds, facts.classes);
    this.latest = facts.id;
    this.shown += 1;
    document.documentElement.dataset.shown = String(this.shown);
  }

  // Over the latest ten seconds of the stream's own clock: reports may come late, and several at once.
  // A method that takes longer has no rate yet.
  windowRate({ seconds, windows }) {
    if (this.windows.length && seconds < this.windows.at(-1)[0]) this.windows = [];
    this.windows.push([seconds, windows]);
    while (this.windows[0][0] < seconds - 10) this.windows.shift();
    const [since, before] = this.windows[0];
    return seconds - since > 1 ? ((windows - before) / (seconds - since)).toFixed(1) : NONE;
  }

  report(report) {
    show("windows", this.windowRate(report));
    show("viewers", String(report.viewers));
    show("dropped", String(report.dropped));
    show("skipped", String(report.viewer.skipped));
    show("rate", report.rate.toFixed(1));
    const rows = [["drawn", report.latency], ["sent", report.viewer.sent_after], ["shown", report.viewer.shown_after]];
    for (const [name, times] of rows) {
      show(`${name}-p50`, milliseconds(times?.p50));
      show(`${name}-p95`, milliseconds(times?.p95));
    }
    const stages = Object.entries(report.stages).map(([name, { p50, p95 }]) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = name;
      const cells = [p50, p95].map((value) => {
        const cell = document.createElement("td");
        cell.textContent = value === null ? NONE : `${(1000 * value).toFixed(1)} ms`;
        return cell;
      });
      row.append(head, ...cells);
      return row;
    });
    byId("stages").replaceChildren(...stages);
    for (const complaint of report.complaints) this.notice(complaint);
  }

  // Each text once; the latest ones.
  notice(text) {
    const list = byId("notices");
    for (const item of list.children) if (item.textContent === text) return;
    const item = document.createElement("li");
    item.textContent = text;
    list.prepend(item);
    while (list.children.length > 8) list.lastChild.remove();
    byId("notices-card").hidden = false;
  }
}

// The token has become a cookie; it need not stay in the address and the history.
if (new URLSearchParams(location.search).has("token")) history.replaceState(null, "", location.pathname);
new Live();
