/* What the generated description of a model gives to vitc_preprocess.c, and what that tells others. Internal to the library. */
#ifndef VITC_PICTURES_H
#define VITC_PICTURES_H

#include "vitc_model.h"

extern const vitc_preprocessing vitc_model_preprocessing; /* of height 0 where the model does not say */
extern const char *const vitc_model_labels[];
extern const int32_t vitc_model_label_count;

/* Where the input lies on a picture: the size of the resized picture, and the input's upper left corner on it. */
typedef struct {
  int32_t height, width, top, left;
} vitc_placement;

/* Of a picture that vitc_preprocess takes. VITC_ERROR_ARGUMENT if it would become too large. */
vitc_status vitc_place(int32_t height, int32_t width, vitc_placement *placed);

#endif
