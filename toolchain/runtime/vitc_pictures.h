/* What the generated description of a model gives to vitc_preprocess.c. Internal to the library. */
#ifndef VITC_PICTURES_H
#define VITC_PICTURES_H

#include "vitc_model.h"

extern const vitc_preprocessing vitc_model_preprocessing; /* of height 0 where the model does not say */
extern const char *const vitc_model_labels[];
extern const int32_t vitc_model_label_count;

#endif
