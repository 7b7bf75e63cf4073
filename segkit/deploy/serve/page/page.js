// One photo at a time: send it, decode the run lengths of every class, paint them over the photo.
"use strict";

const find = (id) => document.getElementById(id);
const LARGEST = 2048; // side of the painted overlay; phones refuse huge canvases
let answer = null; // {width, height, classes, map}: map is the class number of every painted pixel, in layers
let turn = 0; // of the photo that was sent last: earlier answers come too late

// COCO's compressed run lengths -> where the runs of ones begin and end, down the columns.
function runs(counts) {
  const lengths = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0, shift = 0, bits;
    do {
      bits = counts.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      shift += 5;
    } while (bits & 32);
    if (bits & 16 && shift < 32) value |= -1 << shift;
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(value);
  }
  return lengths;
}

// 1 where the class is, at the size of the canvas.
function plane(segmentation, width, height) {
  const [rows, columns] = segmentation.size;
  const full = new Uint8Array(rows * columns);
  let at = 0, on = 0;
  for (const length of runs(segmentation.counts)) {
    if (on) full.fill(1, at, at + length);
    at += length;
    on ^= 1;
  }
  const small = new Uint8Array(width * height);
  for (let x = 0; x < width; x++) {
    const column = Math.floor(((x + 0.5) * columns) / width) * rows;
    for (let y = 0; y < height; y++) small[y * width + x] = full[column + Math.floor(((y + 0.5) * rows) / height)];
  }
  return small;
}

function paint() {
  const canvas = find("overlay");
  const pixels = new ImageData(canvas.width, canvas.height);
  const bytes = pixels.data;
  const alpha = Math.round(find("opacity").value * 2.55);
  for (const row of answer.classes) {
    if (!row.shown || !row.plane) continue;
    const [red, green, blue] = row.color;
    for (let i = 0; i < row.plane.length; i++) {
      if (!row.plane[i]) continue;
      bytes[4 * i] = red;
      bytes[4 * i + 1] = green;
      bytes[4 * i + 2] = blue;
      bytes[4 * i + 3] = alpha;
    }
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function legend() {
  const body = find("legend");
  body.replaceChildren();
  for (const row of answer.classes) {
    const line = body.insertRow();
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: row.shown });
    box.addEventListener("change", () => { row.shown = box.checked; paint(); });
    const swatch = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
    const brush = swatch.getContext("2d");
    brush.fillStyle = `rgb(${row.color.join(",")})`;
    brush.fillRect(0, 0, 1, 1);
    label.append(box, swatch, row.name);
    line.insertCell().append(label);
    line.insertCell().textContent = row.pixels.toLocaleString();
    line.insertCell().textContent = `${(100 * row.share).toFixed(1)} %`;
  }
  if (answer.unlabelled.pixels) {
    const line = body.insertRow();
    line.insertCell().textContent = "none of them";
    line.insertCell().textContent = answer.unlabelled.pixels.toLocaleString();
    line.insertCell().textContent = `${(100 * answer.unlabelled.share).toFixed(1)} %`;
  }
}

function say(text, bad) {
  find("status").textContent = text;
  find("status").classList.toggle("bad", Boolean(bad));
}

function address(format) {
  const name = find("model").value; // none before the list is here: the default model answers
  return `${name ? `v1/models/${encodeURIComponent(name)}/` : ""}predict?format=${format}`;
}

async function post(file, format) {
  const reply = await fetch(address(format), {
    method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" },
  });
  if (reply.ok) return reply;
  const body = await reply.json().catch(() => null);
  throw new Error(body?.error?.message ?? `the server answered ${reply.status}`);
}

function show(file, found, seconds) {
  const scale = Math.min(1, LARGEST / Math.max(found.width, found.height));
  const canvas = find("overlay");
  canvas.width = Math.max(1, Math.round(found.width * scale));
  canvas.height = Math.max(1, Math.round(found.height * scale));
  for (const row of found.classes) {
    row.shown = true;
    row.plane = row.pixels ? plane(row.segmentation, canvas.width, canvas.height) : null;
  }
  answer = { ...found, file };
  const photo = find("photo");
  URL.revokeObjectURL(photo.src);
  find("view").classList.remove("unseen");
  photo.onerror = () => find("view").classList.add("unseen"); // TIFF, NPY: the server reads them, browsers do not
  photo.src = URL.createObjectURL(file);
  URL.revokeObjectURL(find("mask").href);
  find("mask").removeAttribute("href");
  find("drop").hidden = true;
  find("view").hidden = find("side").hidden = false;
  document.body.classList.add("shown");
  legend();
  paint();
  say(`${file.name}: ${found.width} x ${found.height} pixels, ${seconds.toFixed(2)} s`);
}

async function send(file) {
  const mine = ++turn;
  const begin = performance.now();
  say(`${file.name} is being segmented …`);
  try {
    const found = await (await post(file, "rle")).json();
    if (mine === turn) show(file, found, (performance.now() - begin) / 1000);
  } catch (error) {
    if (mine === turn) say(error instanceof TypeError ? "The server does not answer." : error.message, true);
  }
}

function take(list) {
  const file = [...(list ?? [])].find((item) => item instanceof File);
  if (file) send(file);
}

find("file").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
find("drop").addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") find("file").click(); });
find("another").addEventListener("click", () => find("file").click());
find("opacity").addEventListener("input", () => {
  find("percent").textContent = `${find("opacity").value} %`;
  if (answer) paint();
});
find("model").addEventListener("change", () => { if (answer) send(answer.file); });
find("mask").addEventListener("click", async (event) => {
  const link = find("mask");
  if (link.hasAttribute("href")) return;
  event.preventDefault();
  const asked = answer; // another photo may be shown before its mask is here
  try {
    const made = await (await post(asked.file, "mask")).blob();
    if (asked !== answer || link.hasAttribute("href")) return;
    link.href = URL.createObjectURL(made);
    link.click();
  } catch (error) {
    if (asked === answer) say(error.message, true);
  }
});
document.addEventListener("paste", (event) => take(event.clipboardData?.files));
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
document.addEventListener("dragleave", () => document.body.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  take(event.dataTransfer?.files);
});

fetch("v1/models").then((reply) => reply.json()).then(({ models }) => {
  for (const { name } of models) find("model").add(new Option(name, name));
  find("models").hidden = models.length < 2;
}).catch(() => say("The server does not answer.", true));
