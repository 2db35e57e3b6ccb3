/** Small helpers between the modules and the document. */

export const byId = (id) => document.getElementById(id);

/**
 * An element with attributes and children. A false, null or undefined attribute is left out; so is a null child.
 * @param {string} tag
 * @param {Object<string, string|number|boolean|null|undefined>} attributes
 * @param {...(Node|string|null|undefined)} children
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** One of the drawings that index.html carries, hidden from screen readers: a word always stands beside it. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A button with an action. */
export function button(label, onClick, attributes = {}) {
  const element = make("button", { type: "button", ...attributes }, label);
  element.addEventListener("click", onClick);
  return element;
}

/** Writes text only where it differs, so that live regions and layout rest when nothing changed. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Shows text, or hides the element when there is none. */
export function setOptionalText(element, text) {
  setText(element, text ?? "");
  element.hidden = !text;
}

/**
 * A function that runs `work` once in the next frame, however often it is called before that.
 * @param {() => void} work
 */
export function oncePerFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

/**
 * A function that runs `work` at once, then at most every `milliseconds`, and never loses the last call.
 * @param {() => void} work
 * @param {number} milliseconds
 */
export function throttled(work, milliseconds) {
  let timer = null;
  let last = -Infinity;
  return () => {
    if (timer !== null) return;
    const wait = Math.max(0, last + milliseconds - performance.now());
    timer = setTimeout(() => {
      timer = null;
      last = performance.now();
      work();
    }, wait);
  };
}
