// OpenCV's half-pixel bilinear and nearest resizing, number for number.

/** For each of `to` places along an axis of `from` samples: its two neighbours and their weights. */
function neighbours(from, to, weights) {
  const low = new Int32Array(to);
  const high = new Int32Array(to);
  const first = new Float64Array(to);
  const second = new Float64Array(to);
  for (let index = 0; index < to; index++) {
    const place = Math.fround((index + 0.5) * (from / to) - 0.5);
    const before = Math.floor(place);
    const inside = before >= 0 && before < from - 1;
    low[index] = Math.min(Math.max(before, 0), from - 1);
    high[index] = Math.min(low[index] + 1, from - 1);
    [first[index], second[index]] = weights(inside ? Math.fround(place - before) : 0);
  }
  return { low, high, first, second };
}

/** Rows resized along their length, each computed once: `of(row)` is kept for the last two. */
function rowCache(compute, length, Kind) {
  const kept = [new Kind(length), new Kind(length)];
  const which = [-1, -1];
  return (row) => {
    const found = which.indexOf(row);
    if (found >= 0) return kept[found];
    const slot = which[0] < which[1] ? 0 : 1;
    which[slot] = row;
    compute(row, kept[slot]);
    return kept[slot];
  };
}

/**
 * Both passes of a bilinear resizing into `out`. `how.across` mixes a row's neighbours into a `how.Kind`, `how.down` two
 * of those rows; the loops are theirs, because a function called for each pixel takes twice the time.
 */
function resized(data, [height, width, channels], [toHeight, toWidth], out, how) {
  const columns = neighbours(width, toWidth, how.weights);
  const rows = neighbours(height, toHeight, how.weights);
  const length = toWidth * channels;
  const compute = (row, mixed) => how.across(mixed, data, row * width * channels, columns, channels);
  const rowOf = rowCache(compute, length, how.Kind);
  for (let y = 0; y < toHeight; y++) {
    const place = out.subarray(y * length, (y + 1) * length);
    how.down(place, rowOf(rows.low[y]), rowOf(rows.high[y]), rows.first[y], rows.second[y]);
  }
  return out;
}

const FLOATS = {
  Kind: Float32Array,
  weights: (share) => [1 - share, share],
  across(mixed, data, start, { low, high, first, second }, channels) {
    for (let x = 0, at = 0; x < low.length; x++) {
      const left = start + low[x] * channels;
      const right = start + high[x] * channels;
      for (let c = 0; c < channels; c++, at++) mixed[at] = data[left + c] * first[x] + data[right + c] * second[x];
    }
  },
  down(out, top, bottom, first, second) {
    for (let x = 0; x < out.length; x++) out[x] = top[x] * first + bottom[x] * second;
  },
};
const ONE = 2048; // OpenCV's weights of 8-bit pixels: 11 bits after the point
const BYTES = {
  Kind: Int32Array,
  weights: (share) => [Math.round((1 - share) * ONE), Math.round(share * ONE)],
  across(mixed, data, start, { low, high, first, second }, channels) {
    for (let x = 0, at = 0; x < low.length; x++) {
      const left = start + low[x] * channels;
      const right = start + high[x] * channels;
      for (let c = 0; c < channels; c++, at++) mixed[at] = (data[left + c] * first[x] + data[right + c] * second[x]) >> 4;
    }
  },
  down(out, top, bottom, first, second) {
    for (let x = 0; x < out.length; x++) out[x] = (((first * top[x]) >> 16) + ((second * bottom[x]) >> 16) + 2) >> 2;
  },
};

/** Floats [height, width, channels] -> Float32Array [toHeight, toWidth, channels], bilinear. */
export function resizeFloats(data, height, width, channels, toHeight, toWidth) {
  if (height === toHeight && width === toWidth) return data;
  const out = new Float32Array(toHeight * toWidth * channels);
  return resized(data, [height, width, channels], [toHeight, toWidth], out, FLOATS);
}

/** Bytes [height, width, channels] -> Uint8ClampedArray [toHeight, toWidth, channels], in OpenCV's whole numbers. */
export function resizeBytes(data, height, width, channels, toHeight, toWidth) {
  if (height === toHeight && width === toWidth) return data;
  const out = new Uint8ClampedArray(toHeight * toWidth * channels);
  return resized(data, [height, width, channels], [toHeight, toWidth], out, BYTES);
}

/** [height, width, channels] of any type by nearest neighbour; `places` says which sample each place takes. */
export function resizeNearest(data, height, width, channels, toHeight, toWidth, places) {
  const rows = places(height, toHeight);
  const columns = places(width, toWidth);
  const out = new data.constructor(toHeight * toWidth * channels);
  for (let y = 0, at = 0; y < toHeight; y++) {
    for (let x = 0; x < toWidth; x++) {
      const from = (rows[y] * width + columns[x]) * channels;
      for (let c = 0; c < channels; c++, at++) out[at] = data[from + c];
    }
  }
  return out;
}

/** Nearest samples as OpenCV counts them. */
export function nearestPlaces(from, to) {
  return Int32Array.from({ length: to }, (_, index) => Math.min(Math.floor(index * (from / to)), from - 1));
}

/** Nearest samples as masks are enlarged, counted in 32-bit floats. */
export function maskPlaces(from, to) {
  const scale = Math.fround(from / to);
  return Int32Array.from({ length: to }, (_, index) => Math.trunc(Math.fround(index * scale)));
}
