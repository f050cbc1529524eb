/* vitc: from the pixels of a picture to the input of a network, and the names of its classes.
 *
 * The arithmetic is that of vitc.models.preprocessing, which is Pillow's (libImaging/Resample.c, Geometry.c): weights of a
 * row or column as integers of 22 bits, columns first, bytes in between. Only what the crop shows is computed. */
#include <stdlib.h>

#include "vitc_pictures.h"

#pragma STDC FP_CONTRACT OFF

enum { WEIGHT_BITS = 22, LONGEST_SIDE = 65535, MOST_PIXELS = 1 << 26 };

/* For each row or column of the crop, which of the picture it is made of, and with which weights. */
typedef struct {
  int32_t *first, *count, *weights;
  int32_t most; /* weights of each */
} windows;

static double linear(double x) {
  if (x < 0.0) x = -x;
  return x < 1.0 ? 1.0 - x : 0.0;
}

static double cubic(double x) {
  const double a = -0.5;
  if (x < 0.0) x = -x;
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

static double stretch(int32_t from, int32_t to) {
  double scale = (double)from / to;
  return scale < 1.0 ? 1.0 : scale;
}

static int32_t most_weights(int32_t filter, int32_t from, int32_t to) {
  if (filter == VITC_NEAREST || from == to) return 1;
  double support = (filter == VITC_BICUBIC ? 2.0 : 1.0) * stretch(from, to);
  int32_t whole = (int32_t)support;
  return (whole < support ? whole + 1 : whole) * 2 + 1;
}

/* The nearest place is found by adding up, as Pillow does it. */
static void pick(const windows *made, int32_t from, int32_t to, int32_t begin, int32_t end, int same) {
  double scale = same ? 1.0 : (double)from / to, place = scale * 0.5;
  for (int32_t i = 0; i < end; i++, place += scale) {
    if (i < begin) continue;
    int32_t at = same ? i : (int32_t)place;
    made->first[i - begin] = at < from ? at : from - 1;
    made->count[i - begin] = 1;
    made->weights[i - begin] = 1 << WEIGHT_BITS;
  }
}

static void weigh(const windows *made, int32_t filter, int32_t from, int32_t to, int32_t begin, int32_t end, double *room) {
  double scale = (double)from / to, wide = stretch(from, to), narrow = 1.0 / wide;
  double support = (filter == VITC_BICUBIC ? 2.0 : 1.0) * wide;
  for (int32_t i = begin; i < end; i++) {
    double centre = (i + 0.5) * scale, sum = 0.0;
    int32_t first = (int32_t)(centre - support + 0.5), last = (int32_t)(centre + support + 0.5);
    if (centre - support + 0.5 < 0) first = 0;
    if (last > from) last = from;
    int32_t count = last - first, *weights = made->weights + (size_t)(i - begin) * (size_t)made->most;
    for (int32_t j = 0; j < count; j++) {
      double x = (j + first - centre + 0.5) * narrow;
      room[j] = filter == VITC_BICUBIC ? cubic(x) : linear(x);
      sum += room[j];
    }
    for (int32_t j = 0; j < count; j++) {
      double weight = sum != 0.0 ? room[j] / sum : room[j];
      weights[j] = (int32_t)((weight < 0 ? -0.5 : 0.5) + weight * (1 << WEIGHT_BITS));
    }
    made->first[i - begin] = first;
    made->count[i - begin] = count;
  }
}

static uint8_t byte_of(int32_t sum) {
  sum >>= WEIGHT_BITS;
  return sum < 0 ? 0 : sum > 255 ? 255 : (uint8_t)sum;
}

/* Half of what is left over, to the even side. */
static int32_t margin(int32_t whole, int32_t part) {
  int32_t half = (whole - part) / 2;
  return (whole - part) % 2 ? half + (half & 1) : half;
}

static size_t words(int32_t count, int32_t most) { return (size_t)count * ((size_t)most + 2); }

static void place(windows *made, int32_t *memory, int32_t count, int32_t most) {
  made->first = memory;
  made->count = memory + count;
  made->weights = memory + 2 * (size_t)count;
  made->most = most;
}

static void look(const windows *made, int32_t filter, int32_t from, int32_t to, int32_t begin, int32_t count, double *room) {
  int same = from == to;
  if (same || filter == VITC_NEAREST) pick(made, from, to, begin, begin + count, same);
  else weigh(made, filter, from, to, begin, begin + count, room);
}

vitc_status vitc_place(int32_t height, int32_t width, vitc_placement *placed) {
  const vitc_preprocessing *how = &vitc_model_preprocessing;
  /* The shorter side is exact, the longer one truncated. */
  int64_t tall = how->resize_height, broad = how->resize_width;
  if ((int64_t)width * how->resize_height >= (int64_t)height * how->resize_width)
    broad = (int64_t)((double)(tall * width) / height);
  else
    tall = (int64_t)((double)(broad * height) / width);
  if (tall * broad > MOST_PIXELS) return VITC_ERROR_ARGUMENT;
  *placed = (vitc_placement){(int32_t)tall, (int32_t)broad, margin((int32_t)tall, how->height),
                             margin((int32_t)broad, how->width)};
  return VITC_OK;
}

/* The crop, normalised to `floats`, or as it is to `bytes`. */
static vitc_status crop(const uint8_t *rgb, int32_t height, int32_t width, size_t stride, float *floats, uint8_t *bytes) {
  const vitc_preprocessing *how = &vitc_model_preprocessing;
  if (!how->height) return VITC_ERROR_PORT;
  if (!rgb || !(floats || bytes) || height < 1 || width < 1 || height > LONGEST_SIDE || width > LONGEST_SIDE) return VITC_ERROR_ARGUMENT;
  if (!stride) stride = 3 * (size_t)width;
  if (stride < 3 * (size_t)width) return VITC_ERROR_ARGUMENT;
  vitc_placement placed;
  vitc_status status = vitc_place(height, width, &placed);
  if (status) return status;
  int32_t rows = how->height, columns = how->width, high = placed.height, wide = placed.width;
  int32_t most_x = most_weights(how->filter, width, wide), most_y = most_weights(how->filter, height, high);
  size_t row_bytes = 3 * (size_t)columns, room = (size_t)(most_x > most_y ? most_x : most_y);
  size_t numbers = words(columns, most_x) + words(rows, most_y);
  void *memory = NULL;
  if (posix_memalign(&memory, 64, room * sizeof(double) + numbers * sizeof(int32_t) + (size_t)height * row_bytes))
    return VITC_ERROR_MEMORY;
  double *doubles = memory;
  int32_t *integers = (int32_t *)(doubles + room);
  uint8_t *narrowed = (uint8_t *)(integers + numbers);
  windows x, y;
  place(&x, integers, columns, most_x);
  place(&y, integers + words(columns, most_x), rows, most_y);
  look(&x, how->filter, width, wide, placed.left, columns, doubles);
  look(&y, how->filter, height, high, placed.top, rows, doubles);

  int32_t from = y.first[0], to = y.first[rows - 1] + y.count[rows - 1];
  for (int32_t row = from; row < to; row++) {
    const uint8_t *line = rgb + (size_t)row * stride;
    uint8_t *out = narrowed + (size_t)row * row_bytes;
    for (int32_t column = 0; column < columns; column++) {
      const int32_t *weights = x.weights + (size_t)column * (size_t)most_x;
      const uint8_t *pixel = line + 3 * (size_t)x.first[column];
      int32_t sum[3] = {1 << (WEIGHT_BITS - 1), 1 << (WEIGHT_BITS - 1), 1 << (WEIGHT_BITS - 1)};
      for (int32_t j = 0; j < x.count[column]; j++)
        for (int32_t c = 0; c < 3; c++) sum[c] += pixel[3 * j + c] * weights[j];
      for (int32_t c = 0; c < 3; c++) *out++ = byte_of(sum[c]);
    }
  }
  for (int32_t row = 0; row < rows; row++) {
    const int32_t *weights = y.weights + (size_t)row * (size_t)most_y;
    const uint8_t *top = narrowed + (size_t)y.first[row] * row_bytes;
    for (int32_t column = 0; column < columns; column++)
      for (int32_t c = 0; c < 3; c++) {
        int32_t sum = 1 << (WEIGHT_BITS - 1);
        for (int32_t j = 0; j < y.count[row]; j++)
          sum += top[(size_t)j * row_bytes + 3 * (size_t)column + (size_t)c] * weights[j];
        size_t place = ((size_t)c * (size_t)rows + (size_t)row) * (size_t)columns + (size_t)column;
        if (bytes) bytes[place] = byte_of(sum);
        else floats[place] = ((float)byte_of(sum) / 255.0f - how->mean[c]) / how->std[c];
      }
  }
  free(memory);
  return VITC_OK;
}

vitc_status vitc_preprocess(const uint8_t *rgb, int32_t height, int32_t width, size_t stride, float *input) {
  return crop(rgb, height, width, stride, input, NULL);
}

vitc_status vitc_preprocess_u8(const uint8_t *rgb, int32_t height, int32_t width, size_t stride, uint8_t *input) {
  return crop(rgb, height, width, stride, NULL, input);
}

vitc_status vitc_get_preprocessing(vitc_preprocessing *result) {
  if (!result) return VITC_ERROR_ARGUMENT;
  if (!vitc_model_preprocessing.height) return VITC_ERROR_PORT;
  *result = vitc_model_preprocessing;
  return VITC_OK;
}

const char *vitc_label(int32_t index) {
  return index >= 0 && index < vitc_model_label_count ? vitc_model_labels[index] : NULL;
}
