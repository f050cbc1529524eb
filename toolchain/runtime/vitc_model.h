/* vitc: C interface of a compiled model (libvitc_model.so).
 *
 * One library holds one model with its weights. A handle owns its workspace and its threads; distinct handles may be
 * used from distinct threads at once. Nothing is allocated by a run.
 *
 * A model has entries, each a program with named ports: what it is given and what it gives. One image in and logits out is
 * the case that vitc_run is for, or vitc_run_u8 where the image is bytes; vitc_run_ports runs every entry.
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

#define VITC_ABI_VERSION 2
#define VITC_MAX_THREADS 64
#define VITC_MAX_AXES 8
#define VITC_MAX_PORTS 64 /* of an entry */
#define VITC_EXTENT (-1)  /* size of the axis whose length `n` each run chooses */

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
  VITC_ERROR_BUSY = 5,     /* this handle is running in another thread */
  VITC_ERROR_PORT = 6,     /* an entry or a port that there is not, is missing, is named twice or is of another size */
  VITC_ERROR_INDEX = 7     /* an index is negative or not below the limit of its port; nothing was computed */
} vitc_status;

typedef struct vitc_model vitc_model;

typedef struct {
  uint32_t abi_version;   /* VITC_ABI_VERSION of the library */
  int32_t batch;          /* images that one run takes */
  int32_t entries;        /* programs in the library; vitc_run is for the first */
  int32_t channels;       /* of an image; this and the next three are 0 where the first entry is not for vitc_run or _u8 */
  int32_t height;         /* of an image, pixels */
  int32_t width;          /* of an image, pixels */
  int32_t classes;        /* logits of an image */
  int32_t steps;          /* kernels that the first entry runs for one image */
  size_t workspace_bytes; /* allocated by vitc_create */
  const char *target;     /* name of the target it was compiled for */
} vitc_info;

typedef enum { VITC_FLOAT32 = 0, VITC_INT32 = 1, VITC_UINT8 = 2 } vitc_dtype;

typedef struct {
  const char *name;
  int32_t ports; /* inputs first, then outputs */
  int32_t inputs;
  int32_t steps; /* kernels that run for one image */
} vitc_entry;

typedef struct {
  const char *name;
  int32_t dtype;     /* of vitc_dtype */
  int32_t per_image; /* whether each image has one: the array has an axis of `batch` images in front */
  int32_t limit;     /* of an index, which is at least 0 and below this; 0 for what is no index */
  int32_t axes;
  int64_t shape[VITC_MAX_AXES]; /* of one image, or of the run; one axis may be VITC_EXTENT */
} vitc_port;

/* Called after each kernel with what it wrote, on the thread that called for the run: once for each buffer or port. `step`
 * counts the kernels of one image from 0; `name` is the tap that the buffer holds, in the layout the manifest describes. */
typedef void (*vitc_observer)(void *user, int32_t image, int32_t step, const char *name,
                              const void *data, size_t bytes);

/* Describe the model; vitc_label and vitc_get_preprocessing say the rest. Safe on any CPU of the right architecture. */
VITC_API void vitc_get_info(vitc_info *info);

typedef enum { VITC_NEAREST = 0, VITC_BILINEAR = 1, VITC_BICUBIC = 2 } vitc_filter;

/* How a picture becomes an input: resized until it just covers the box, its centre cut out, (x / 255 - mean) / std. */
typedef struct {
  int32_t resize_height; /* of the box, pixels */
  int32_t resize_width;
  int32_t height; /* of the crop, which is the input */
  int32_t width;
  int32_t filter; /* of vitc_filter */
  float mean[3];  /* red, green, blue; of values from 0 to 1 */
  float std[3];
} vitc_preprocessing;

/* What belongs to the info of an image classifier: the preprocessing, VITC_ERROR_PORT if the model does not say; and the
 * name of a class, in UTF-8, null where it has none. */
VITC_API vitc_status vitc_get_preprocessing(vitc_preprocessing *result);
VITC_API const char *vitc_label(int32_t index);

/* Make of a picture an input of vitc_run: one image, fp32 [3, height, width]. The picture is upright, 8 bits a colour, red,
 * green, blue, at most 65535 pixels wide and high; `stride` is from row to row in bytes, 0 if rows follow each other.
 * Allocates, and needs no handle. */
VITC_API vitc_status vitc_preprocess(const uint8_t *rgb, int32_t height, int32_t width, size_t stride, float *input);

/* The same without the last step, resized and cropped only, for vitc_run_u8: uint8 [3, height, width]. Bytes are rounded to
 * the nearest, halves up, after each of the two passes of the resizing. */
VITC_API vitc_status vitc_preprocess_u8(const uint8_t *rgb, int32_t height, int32_t width, size_t stride, uint8_t *input);

/* Describe an entry, counted from 0, and a port of it; VITC_ERROR_PORT if there is none. */
VITC_API vitc_status vitc_get_entry(int32_t entry, vitc_entry *result);
VITC_API vitc_status vitc_get_port(int32_t entry, int32_t port, vitc_port *result);

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

/* input: fp32 [batch, channels, height, width], normalised; output: fp32 [batch, classes]. VITC_ERROR_PORT if the first entry
 * has other ports, an image of bytes among them. */
VITC_API vitc_status vitc_run(vitc_model *model, const float *input, float *output);

/* The same, and show every buffer to `observer`. */
VITC_API vitc_status vitc_run_observed(vitc_model *model, const float *input, float *output,
                                       vitc_observer observer, void *user);

/* vitc_run for a model with an integer embedding, whose image is bytes (vitc_port.dtype is VITC_UINT8): pixels from 0 to 255,
 * uint8 [batch, channels, height, width], resized and cropped, not normalised. VITC_ERROR_PORT if the first entry has other
 * ports. */
VITC_API vitc_status vitc_run_u8(vitc_model *model, const uint8_t *input, float *output);

typedef struct {
  const char *port;
  void *data;   /* dense, in C order; what is given is not written to */
  size_t bytes; /* of all of it, as the port's shape, the batch and `n` come to */
} vitc_array;

typedef struct {
  size_t size;              /* of this structure, in bytes */
  const char *entry;        /* null for the first */
  const vitc_array *arrays; /* each port once, in any order */
  int32_t count;
  int64_t n;              /* length of the axes that are VITC_EXTENT, up to 2^31 - 1; 0 if there are none */
  vitc_observer observer; /* or null */
  void *user;             /* of the observer */
} vitc_call;

/* Run an entry. Sizes and indices are checked before anything is computed. */
VITC_API vitc_status vitc_run_ports(vitc_model *model, const vitc_call *call);

/* Stop the threads and free the handle, after the run that it is in, if any. Null, and a handle that was destroyed
 * before, are ignored (unless a new handle lies at its address by now). */
VITC_API void vitc_destroy(vitc_model *model);

/* One sentence for a status; never null. */
VITC_API const char *vitc_status_text(vitc_status status);

#ifdef __cplusplus
}
#endif
#endif
