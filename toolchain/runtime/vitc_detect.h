/* vitc: boxes of what a detector sees, with a library that has a detector as its first entry.
 *
 *     vitc_box boxes[100];
 *     int32_t count;
 *     if (vitc_detect(model, rgb, height, width, 0, NULL, boxes, 100, &count)) ...
 *
 * vitc_decode is the second half of it, from maps to boxes. It does what vitc.runtime.detection does in Python, box by box:
 * every step is one addition, product or comparison of fp32. */
#ifndef VITC_DETECT_H
#define VITC_DETECT_H

#include "vitc_model.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { VITC_MAX_LEVELS = 16 };

typedef struct {
  float x0, y0, x1, y1; /* left, top, right, bottom, in pixels */
  float score;          /* class times centreness */
  int32_t label;        /* number of the class; vitc_label names it */
} vitc_box;

typedef struct {
  size_t size;        /* of this structure, in bytes */
  float score;        /* a box is one where its score is larger than that; 0.05 */
  float overlap;      /* one that overlaps a better one of its class by more than that is left out; 0.6 */
  int32_t candidates; /* best boxes before that; 1000 */
  int32_t most;       /* boxes of a picture; 100 */
} vitc_detect_options;

/* The maps of a level: rows x columns places that are `stride` pixels apart, in C order. */
typedef struct {
  int32_t stride;
  int32_t rows;
  int32_t columns;
  const float *classes;    /* probabilities, [rows, columns, number of classes] */
  const float *boxes;      /* pixels to the left, upper, right and lower side, [rows, columns, 4] */
  const float *centreness; /* probabilities, [rows, columns] */
} vitc_level;

/* From maps to boxes in pixels of the input, which is height x width; the best first. Levels go from the finest to the
 * coarsest; places whose distances are not all finite, and scores that are no numbers, give none. `options` may be null for
 * the values above. `count` is set to how many boxes there are; the first `room` of them are written. Allocates, and needs no
 * handle. */
VITC_API vitc_status vitc_decode(const vitc_level *levels, int32_t number, int32_t classes, int32_t height, int32_t width,
                                 const vitc_detect_options *options, vitc_box *boxes, int32_t room, int32_t *count);

/* From a picture, as of vitc_preprocess, to boxes in its pixels: preprocessing, one run and vitc_decode. Allocates.
 * VITC_ERROR_PORT if the first entry gives no maps of a detector. */
VITC_API vitc_status vitc_detect(vitc_model *model, const uint8_t *rgb, int32_t height, int32_t width, size_t stride,
                                 const vitc_detect_options *options, vitc_box *boxes, int32_t room, int32_t *count);

#ifdef __cplusplus
}
#endif
#endif
