// deploy.yaml, the same file that infer.py reads: what an exported folder says about itself.
import { parse } from "yaml";

const CHANNELS = [1, 3];

/** Raise an error in the words of the command line: what is wrong, what was got, how to mend it. */
export function fail(text) {
  throw new Error(text);
}

/**
 * The settings of the text of a deploy.yaml; `name` is used in messages.
 * Refused: what is not one, has no ONNX model, or asks for what a browser cannot do.
 */
export function readSpec(text, name) {
  const node = deployNode(text, name);
  if (!node.onnx) fail(`${name}: this folder holds no ONNX model. Export it with --format onnx (or all).`);
  if (!Array.isArray(node.transforms)) fail(`${name}: Deploy.transforms is missing. Export the model again.`);
  const shape = node.input_shape ?? [-1, 3, -1, -1];
  const channels = node.img_channels ?? (shape[1] > 0 ? shape[1] : 3);
  if (!CHANNELS.includes(channels)) {
    fail(`${name}: a browser reads photos of 1 or 3 channels (got img_channels: ${channels}). Use infer.py.`);
  }
  if (node.multilabel) fail(`${name}: several labels a pixel (multilabel) are not drawn here. Use infer.py.`);
  if (node.nodata !== undefined && node.nodata !== null) {
    fail(`${name}: photos with missing data (nodata: ${node.nodata}) are not read here. Use infer.py.`);
  }
  if ((node.scores_are ?? "logits") !== "logits") {
    fail(`${name}: scores that are ${node.scores_are} are not read here (expected logits). Use infer.py.`);
  }
  if (node.test_config?.is_slide) {
    fail(`${name}: sliding windows (test_config: {is_slide: true}) are not cut here. Use infer.py.`);
  }
  if (shape[0] > 1) fail(`${name}: the model takes ${shape[0]} photos at once. Export it with --input_shape -1 ...`);
  return {
    name,
    onnx: node.onnx,
    transforms: node.transforms,
    inputShape: shape,
    inputDtype: node.input_dtype ?? "float32",
    inputLayout: node.input_layout ?? "NCHW",
    outputOp: node.output_op ?? "none",
    threshold: node.threshold ?? null,
    channels,
    classes: classNames(node),
    palette: fullPalette(node.palette ?? []),
  };
}

function deployNode(text, name) {
  let content;
  try {
    content = parse(text);
  } catch (error) {
    fail(`${name}: this is not valid YAML (${error.message.split("\n")[0]}).`);
  }
  const node = content?.Deploy;
  if (typeof node !== "object" || node === null) {
    fail(`${name}: there is no section 'Deploy:'. Give the deploy.yaml of an exported folder.`);
  }
  return node;
}

/** Names of the classes, `class N` where the file has none; a single channel has two, ground and foreground. */
function classNames(node) {
  const names = (node.classes ?? []).map(String);
  const count = Math.max(node.num_classes ?? names.length, 2);
  return Array.from({ length: count }, (_, number) => names[number] ?? `class ${number}`);
}

/** RGB of 256 or more values: the classes' own colours, those of PASCAL VOC for the others. */
function fullPalette(own) {
  return Array.from({ length: Math.max(256, own.length) }, (_, number) => own[number] ?? vocColour(number));
}

/** The bits of the class number dealt out to red, green and blue in turn, from the highest bit of each down. */
function vocColour(number) {
  const colour = [0, 0, 0];
  for (let step = 0; step < 8; step++) {
    for (let channel = 0; channel < 3; channel++) {
      colour[channel] |= ((number >> (3 * step + channel)) & 1) << (7 - step);
    }
  }
  return colour;
}
