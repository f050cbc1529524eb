/* What the generated tables of a model give to the driver. Internal to the library. */
#ifndef VITC_TABLES_H
#define VITC_TABLES_H

#include "vitc_model.h"

/* Where a kernel finds what it reads and writes, for one image. */
typedef struct {
  unsigned char *workspace;
  unsigned char *port[VITC_MAX_PORTS]; /* of this image, where each has one */
} vitc_frame;

/* A buffer of the workspace, or what a port has for one image, as a kernel wrote it. */
typedef struct {
  const char *name;
  size_t offset; /* in the workspace */
  size_t bytes;
  int32_t port; /* or -1: a buffer */
} vitc_written;

typedef struct {
  void (*run)(const vitc_frame *frame, int32_t begin, int32_t end);
  int32_t tasks;        /* VITC_EXTENT: as many as n */
  int32_t first, count; /* of what it writes */
} vitc_step;

/* An output that the driver takes out of a buffer: runs of elements that lie one after the other there. */
typedef struct {
  int32_t port;
  int32_t bits;    /* whether elements are bits, which become bytes; else they are of the port's type */
  size_t offset;   /* of the buffer in the workspace */
  int32_t runs, length, stride; /* in elements */
  const int32_t *starts; /* the element where each run begins, if no stride says so; or null */
} vitc_copy;

typedef struct {
  vitc_entry facts;
  const vitc_port *ports;
  const vitc_step *steps;
  const vitc_written *written;
  const vitc_copy *copies;
  int32_t copy_count;
} vitc_program;

extern const vitc_program vitc_programs[]; /* as many as vitc_model_info has entries */
extern const vitc_info vitc_model_info;
extern const char *const vitc_cpu_features[]; /* ends with a null pointer */
extern const int vitc_uses_tiles; /* whether kernels need Linux's permission to use AMX tiles */

/* vitc_driver.c: set the bytes of a port for one image, or the whole run; 0 if that is beyond what memory holds. */
int vitc_port_bytes(const vitc_port *port, int64_t n, size_t *bytes);

#endif
