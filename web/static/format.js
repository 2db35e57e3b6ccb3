/** Facts of a run in words that people read. */

const numbers = new Intl.NumberFormat("en");
const clockTime = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const dayTime = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});
const fullTime = new Intl.DateTimeFormat(undefined, { dateStyle: "long", timeStyle: "medium" });

const STATUS_WORDS = {
  idle: "Idle",
  connecting: "Connecting",
  queued: "Queued",
  starting: "Starting",
  running: "Running",
  cancelling: "Cancelling",
  succeeded: "Succeeded",
  failed: "Failed",
  cancelled: "Cancelled",
  locked: "Locked",
};
const STATUS_ICONS = { connecting: "running", starting: "running", cancelling: "running", locked: "cancelled" };

export const statusWord = (status) => STATUS_WORDS[status] ?? "Unknown";

/** The drawing for a status: one of those in index.html. */
export function statusIcon(status) {
  if (!(status in STATUS_WORDS)) return "unknown";
  return STATUS_ICONS[status] ?? status;
}

export const count = (number) => numbers.format(number);

/** "1 line", "2,000 lines". */
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** 3852 → "1:04:12": a clock that ticks. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [Math.floor(whole / 60) % 60, whole % 60].map((part) => String(part).padStart(2, "0"));
  const hours = Math.floor(whole / 3600);
  return hours > 0 ? `${hours}:${parts.join(":")}` : parts.join(":");
}

/** 3852 → "1 h 4 min"; 0.4 → "0.4 s": a length that is over. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 10) return `${Math.floor(10 * seconds) / 10} s`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60) % 60} min`;
}

/** "14:03" today, "21 Nov, 14:03" before. */
export function shortTime(text) {
  const moment = new Date(text);
  if (!text || Number.isNaN(moment.getTime())) return "";
  const today = moment.toDateString() === new Date().toDateString();
  return (today ? clockTime : dayTime).format(moment);
}

export const longTime = (text) => (text ? fullTime.format(new Date(text)) : "");

/** 1610612736 → "1.5 GiB". */
export function bytes(size) {
  if (size === null || size === undefined) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = size;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 10 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** The part of a pipeline's address that people call it by: the last one or two names of a path or URL. */
export function pipelineName(pipeline) {
  if (!pipeline) return "Unnamed pipeline";
  const parts = pipeline.replace(/\/+$/, "").replace(/\.git$/, "").split("/").filter(Boolean);
  if (/^(main\.nf|\.)$/.test(parts.at(-1)) && parts.length > 1) parts.pop();
  return /^(\/|\.)/.test(pipeline) ? parts.at(-1) : parts.slice(-2).join("/");
}
