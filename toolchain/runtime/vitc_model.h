/* vitc: C interface of a compiled model (libvitc_model.so).
 *
 * One library holds one model with its weights. A handle owns its workspace and its threads; distinct handles may be
 * used from distinct threads at once. Nothing is allocated by vitc_run.
 *
 * Threads are bound to no processor unless VITC_PIN_THREADS asks for it. They wait a few tens of microseconds for the
 * next kernel or run and then sleep. A caller never waits for a thread that has not begun to compute.
 *
 * After fork the child may use and must destroy the handles that it inherits: the first vitc_run there starts threads
 * of its own, and whatever the parent is doing with the handle does not matter. The workspace is copied when it is
 * written to. */
#ifndef VITC_MODEL_H
#define VITC_MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VITC_ABI_VERSION 1
#define VITC_MAX_THREADS 64

#if defined(__GNUC__)
#define VITC_API __attribute__((visibility("default")))
#else
#define VITC_API
#endif

typedef enum {
  VITC_OK = 0,
  VITC_ERROR_ARGUMENT = 1, /* a null pointer, a handle that was destroyed, a wrong thread count or option */
  VITC_ERROR_MEMORY = 2,   /* the workspace could not be allocated */
  VITC_ERROR_CPU = 3,      /* this CPU lacks a feature, or Linux withholds it; vitc_status_text names it */
  VITC_ERROR_THREAD = 4,   /* a thread could not be started */
  VITC_ERROR_BUSY = 5      /* this handle is running in another thread */
} vitc_status;

typedef struct vitc_model vitc_model;

typedef struct {
  uint32_t abi_version;   /* VITC_ABI_VERSION of the library */
  int32_t batch;          /* images that one vitc_run takes */
  int32_t channels;       /* of an image */
  int32_t height;         /* of an image, pixels */
  int32_t width;          /* of an image, pixels */
  int32_t classes;        /* logits of an image */
  int32_t steps;          /* kernels that run for one image */
  size_t workspace_bytes; /* allocated by vitc_create */
  const char *target;     /* name of the target it was compiled for */
} vitc_info;

/* Called after each kernel with the buffer it wrote, on the thread that called vitc_run_observed. `step` counts the
 * kernels of one image from 0; `name` is the tap that the buffer holds, in the layout the manifest describes. */
typedef void (*vitc_observer)(void *user, int32_t image, int32_t step, const char *name,
                              const void *data, size_t bytes);

/* Describe the model. Safe on any CPU of the right architecture. */
VITC_API void vitc_get_info(vitc_info *info);

/* Make a handle with `threads` threads (1 to VITC_MAX_THREADS), of which the caller of vitc_run is one. There are never
 * more than the processors that the calling thread may use: vitc_threads says how many there are. */
VITC_API vitc_status vitc_create(int32_t threads, vitc_model **model);

enum {
  VITC_PIN_THREADS = 1,  /* bind thread i to the i-th processor that the caller of vitc_create_with may use; the caller
                          * of vitc_run is thread 0 and binds itself, or does not */
  VITC_OVERSUBSCRIBE = 2 /* make as many threads as asked for, however few processors there are */
};

typedef struct {
  size_t size;     /* of this structure, in bytes */
  int32_t threads; /* as of vitc_create */
  uint32_t flags;  /* of the two above */
} vitc_options;

/* vitc_create with options. */
VITC_API vitc_status vitc_create_with(const vitc_options *options, vitc_model **model);

/* Threads of a handle, its caller's included; 0 if it is none. */
VITC_API int32_t vitc_threads(vitc_model *model);

/* input: fp32 [batch, channels, height, width], normalised; output: fp32 [batch, classes]. */
VITC_API vitc_status vitc_run(vitc_model *model, const float *input, float *output);

/* The same, and show every buffer to `observer`. */
VITC_API vitc_status vitc_run_observed(vitc_model *model, const float *input, float *output,
                                       vitc_observer observer, void *user);

/* Stop the threads and free the handle, after the run that it is in, if any. Null, and a handle that was destroyed
 * before, are ignored (unless a new handle lies at its address by now). */
VITC_API void vitc_destroy(vitc_model *model);

/* One sentence for a status; never null. */
VITC_API const char *vitc_status_text(vitc_status status);

#ifdef __cplusplus
}
#endif
#endif
