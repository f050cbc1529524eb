/* What the generated tables of a model give to the driver. Internal to the library. */
#ifndef VITC_TABLES_H
#define VITC_TABLES_H

#include "vitc_model.h"

typedef struct {
  const float *input;      /* one image */
  unsigned char *workspace;
} vitc_frame;

typedef struct {
  void (*run)(const vitc_frame *frame, int32_t begin, int32_t end);
  int32_t tasks;
  size_t offset; /* of the output in the workspace */
  size_t bytes;  /* of the output */
  const char *name;
} vitc_step;

extern const vitc_step vitc_steps[];
extern const vitc_info vitc_model_info;
extern const size_t vitc_logits_offset;
extern const char *const vitc_cpu_features[]; /* ends with a null pointer */
extern const int vitc_uses_tiles; /* whether kernels need Linux's permission to use AMX tiles */

#endif
