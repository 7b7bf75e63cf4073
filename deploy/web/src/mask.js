// From the network's output back to the photo: segkit/postprocess.py in a browser.
import { maskPlaces, resizeFloats, resizeNearest } from "./resize.js";

const UNSURE = 255; // pixels below the threshold

/**
 * Class of each pixel at the photo's size, Uint8Array (Uint16Array from 256 classes on) [height * width].
 * `output`: {data, dims} of scores or probabilities [1, classes, h, w], or class numbers [1, h, w].
 */
export function maskOf(output, geometry, spec) {
  if (output.dims.length === 3) return labelMap(output, geometry);
  const [, classes, height, width] = output.dims;
  const scores = spec.outputOp === "softmax" ? toScores(output.data, classes) : output.data;
  const planeOf = (number) => {
    const size = height * width;
    return undo(scores.subarray(number * size, (number + 1) * size), height, width, geometry, resizePlane);
  };
  return classes === 1 ? foreground(planeOf(0), spec.threshold) : best(planeOf, classes, spec.threshold);
}

/** Logarithms of probabilities differ from the scores by one number a pixel, which changes no order of classes. */
function toScores(probabilities, classes) {
  const tiny = 1.1754943508222875e-38;
  const logarithm = (value) => Math.log(Math.max(value, tiny));
  if (classes > 1) return probabilities.map(logarithm);
  return probabilities.map((value) => logarithm(value) - logarithm(1 - value));
}

function labelMap({ data, dims }, geometry) {
  const numbers = Int32Array.from(data, Number);
  const nearest = (plane, ...sizes) => resizeNearest(plane, sizes[0], sizes[1], 1, sizes[2], sizes[3], maskPlaces);
  const found = undo(numbers, dims[1], dims[2], geometry, nearest);
  return found.some((value) => value > 255) ? Uint16Array.from(found) : Uint8Array.from(found);
}

function foreground(plane, threshold) {
  const cut = threshold === null ? 0 : Math.log(threshold / (1 - threshold));
  return Uint8Array.from(plane, (value) => (value > cut ? 1 : 0));
}

/** The class of the highest score, of equal ones the first, one plane at a time. */
function best(planeOf, classes, threshold) {
  const highest = Float32Array.from(planeOf(0));
  const index = new (classes > 256 ? Uint16Array : Uint8Array)(highest.length);
  for (let number = 1; number < classes; number++) {
    const plane = planeOf(number);
    for (let at = 0; at < plane.length; at++) {
      if (plane[at] > highest[at]) {
        highest[at] = plane[at];
        index[at] = number;
      }
    }
  }
  if (threshold !== null) markUnsure(planeOf, classes, threshold, highest, index);
  return index;
}

function markUnsure(planeOf, classes, threshold, highest, index) {
  const total = new Float32Array(highest.length);
  for (let number = 0; number < classes; number++) {
    const plane = planeOf(number);
    for (let at = 0; at < plane.length; at++) total[at] += Math.exp(plane[at] - highest[at]);
  }
  for (let at = 0; at < total.length; at++) if (1 / total[at] < threshold) index[at] = UNSURE;
}

function resizePlane(plane, height, width, toHeight, toWidth) {
  return resizeFloats(plane, height, width, 1, toHeight, toWidth);
}

/** One plane [height, width] through the steps of `geometry`, the last one first. */
function undo(plane, height, width, geometry, resize) {
  for (const { op, from } of [...geometry].reverse()) {
    plane = op === "resize" ? resize(plane, height, width, from[0], from[1]) : cut(plane, width, from);
    [height, width] = from;
  }
  return plane;
}

/** The upper left part: padding goes to the right and to the bottom. */
function cut(plane, width, [toHeight, toWidth]) {
  const made = new plane.constructor(toHeight * toWidth);
  for (let y = 0; y < toHeight; y++) made.set(plane.subarray(y * width, y * width + toWidth), y * toWidth);
  return made;
}
