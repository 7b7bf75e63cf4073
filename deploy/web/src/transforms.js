// The transforms of deploy.yaml: from a photo to the network's input, as segkit/transforms does it.
import { fail } from "./deploy.js";
import { nearestPlaces, resizeBytes, resizeFloats, resizeNearest } from "./resize.js";

/**
 * An image: `data` [height, width, channels], a Uint8ClampedArray until Normalize, then a Float32Array.
 * @typedef {{data: Uint8ClampedArray|Float32Array, height: number, width: number, channels: number}} Image
 */

/** Python's round: halves go to the even number. */
function round(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

function scaled(image, scale) {
  return [round(image.height * scale), round(image.width * scale)];
}

// Name -> the arguments that it takes, and (arguments) -> (image, geometry) => image.
const KINDS = {
  Resize: [
    ["target_size", "interp", "keep_ratio", "size_divisor"],
    ({ target_size: size = [512, 512], interp = "LINEAR", keep_ratio: keep = false, size_divisor: divisor = null }) => {
      if (!["LINEAR", "NEAREST"].includes(interp)) {
        fail(`Resize: interp ${interp} is not done in the browser (expected LINEAR or NEAREST). Export with one of them.`);
      }
      return (image, geometry) => resize(image, resizeTarget(image, size, keep, divisor), interp, geometry);
    },
  ],
  ResizeByLong: [
    ["long_size"],
    ({ long_size: size }) =>
      (image, geometry) =>
        resize(image, scaled(image, size / Math.max(image.height, image.width)), "LINEAR", geometry),
  ],
  ResizeByShort: [
    ["short_size", "max_size"],
    ({ short_size: size, max_size: limit = null }) => {
      const sizes = [size].flat();
      if (sizes.length !== 1) fail("ResizeByShort: several short_size are drawn at random. Export with one.");
      return (image, geometry) => resize(image, shortTarget(image, sizes[0], limit ?? Infinity), "LINEAR", geometry);
    },
  ],
  LimitLong: [
    ["max_long", "min_long"],
    ({ max_long: most = null, min_long: least = null }) =>
      (image, geometry) => {
        const long = Math.max(image.height, image.width);
        if (most !== null && long > most) return resize(image, scaled(image, most / long), "LINEAR", geometry);
        if (least !== null && long < least) return resize(image, scaled(image, least / long), "LINEAR", geometry);
        return image;
      },
  ],
  Padding: [
    ["target_size", "im_padding_value", "label_padding_value"],
    ({ target_size: [width, height], im_padding_value: value = 127.5 }) =>
      (image, geometry) => {
        if (image.height > height || image.width > width) {
          fail(
            `the photo does not fit into Padding (got ${image.width}x${image.height}, target_size is [${width}, ` +
              `${height}]). Put Resize, ResizeByLong or LimitLong before it in the config, and export again.`,
          );
        }
        return pad(image, height, width, value, geometry);
      },
  ],
  PaddingByAspectRatio: [
    ["aspect_ratio", "im_padding_value", "label_padding_value"],
    ({ aspect_ratio: ratio = 1, im_padding_value: value = 127.5 }) =>
      (image, geometry) => {
        let { height, width } = image;
        if (width / height > ratio) height = Math.max(height, Math.trunc(width / ratio));
        else width = Math.max(width, Math.trunc(height * ratio));
        return pad(image, height, width, value, geometry);
      },
  ],
  Normalize: [["mean", "std"], ({ mean = [0.5], std = [0.5] }) => (image) => normalize(image, mean, std)],
};

/** The transforms of `spec` as functions (image, geometry) => image; one that a browser cannot do is refused. */
export function buildTransforms(spec) {
  return spec.transforms.map((node, index) => {
    const { type, ...args } = node;
    const where = `${spec.name}: Deploy.transforms.${index}`;
    if (!Object.hasOwn(KINDS, type)) {
      fail(`${where}: ${type} is not done in the browser (expected ${Object.keys(KINDS).join(", ")}). Use infer.py.`);
    }
    const [known, make] = KINDS[type];
    const strange = Object.keys(args).find((name) => !known.includes(name));
    if (strange) fail(`${where}: ${type} takes no ${strange} (expected ${known.join(", ")}).`);
    try {
      return make(args);
    } catch (error) {
      return fail(`${where}: ${error.message}`);
    }
  });
}

function resizeTarget(image, [width, height], keepRatio, divisor) {
  let sides = [height, width];
  if (keepRatio) {
    const [short, long] = [Math.min(image.height, image.width), Math.max(image.height, image.width)];
    const scale = Math.min(Math.max(width, height) / long, Math.min(width, height) / short);
    sides = [image.height, image.width].map((side) => Math.trunc(side * scale + 0.5));
  }
  return divisor ? sides.map((side) => Math.ceil(side / divisor) * divisor) : sides;
}

function shortTarget(image, size, limit) {
  const [short, long] = [Math.min(image.height, image.width), Math.max(image.height, image.width)];
  const wanted = (size / short) * long > limit ? Math.max(1, Math.trunc((limit / long) * short)) : size;
  return scaled(image, wanted / short);
}

function resize(image, [height, width], interp, geometry) {
  if (height < 1 || width < 1) fail(`resizing leaves nothing of the photo (${image.width}x${image.height}).`);
  const { data, channels } = image;
  geometry.push({ op: "resize", from: [image.height, image.width], to: [height, width] });
  const sizes = [image.height, image.width, channels, height, width];
  const linear = data instanceof Float32Array ? resizeFloats : resizeBytes;
  const made = interp === "NEAREST" ? resizeNearest(data, ...sizes, nearestPlaces) : linear(data, ...sizes);
  return { data: made, height, width, channels };
}

function pad(image, height, width, value, geometry) {
  const { data, channels } = image;
  if (height === image.height && width === image.width) return image;
  const values = [value].flat();
  if (values.length !== 1 && values.length !== channels) {
    fail(`im_padding_value does not fit the photo (got ${values.length} numbers for ${channels} channels).`);
  }
  geometry.push({ op: "pad", from: [image.height, image.width], to: [height, width] });
  const bytes = !(data instanceof Float32Array);
  const fill = Array.from({ length: channels }, (_, c) => values[values.length === 1 ? 0 : c]);
  const made = new data.constructor(height * width * channels);
  for (let at = 0; at < made.length; at++) made[at] = bytes ? round(fill[at % channels]) : fill[at % channels];
  for (let y = 0; y < image.height; y++) {
    const row = image.width * channels;
    made.set(data.subarray(y * row, (y + 1) * row), y * width * channels);
  }
  return { data: made, height, width, channels };
}

function normalize(image, mean, std) {
  const { data, channels } = image;
  for (const [name, values] of Object.entries({ mean, std })) {
    if (values.length !== 1 && values.length !== channels) {
      fail(`Normalize does not fit the photo (got ${values.length} numbers in ${name} for ${channels} channels).`);
    }
  }
  const made = new Float32Array(data.length);
  for (let at = 0; at < data.length; at++) {
    const centred = Math.fround(Math.fround(data[at] / 255) - mean[mean.length === 1 ? 0 : at % channels]);
    made[at] = centred / std[std.length === 1 ? 0 : at % channels];
  }
  return { ...image, data: made };
}
