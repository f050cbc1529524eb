/* vitc-run: runs the compiled model that lies beside it. Prints one JSON object; any error is exit code 1 and one sentence
 * on stderr. `usage` below says how. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vitc_loader.h"
#include "vitc_runner.h"

static const char usage[] =
    "vitc-run: runs the compiled model that lies beside it\n"
    "\n"
    "  vitc-run INPUT.npy OUTPUT.npy [OPTIONS]   fp32 [images, channels, height, width], normalised, to logits;\n"
    "                                            uint8, not normalised, with an integer embedding\n"
    "  vitc-run PICTURE.ppm OUTPUT.npy [OPTIONS] the same of one picture, resized and cropped as the model says\n"
    "  vitc-run --input NAME=FILE.npy .. --output NAME=FILE.npy .. [OPTIONS]   the same by the names of ports\n"
    "  vitc-run PICTURE.ppm --boxes [OPTIONS]    print the boxes that a detector finds in a picture, in pixels of it\n"
    "  vitc-run --self-test [OPTIONS]            verify the library, and compare every layer of a stored image\n"
    "                                            of each entry, or of --entry alone\n"
    "\n"
    "  --input NAME=FILE   array of an input; each input once\n"
    "  --output NAME=FILE  where an output is written; those that are not named are not\n"
    "  --score S        least score of a box that is printed (0.2)\n"
    "  --entry NAME     another program of the library than its first\n"
    "  --threads T      threads, 1 to 64 (1); never more than the processors that it may use\n"
    "  --pin            bind each thread to a processor of its own\n"
    "  --oversubscribe  make as many threads as asked for, however few processors there are\n"
    "  --repeat N       timed runs of all images (1)\n"
    "  --warmup W       runs of all images before them, not timed (0)\n"
    "  --profile        time each kernel as well\n"
    "  --trace FILE     write the buffer of every kernel of every image, one after the other\n"
    "  --digests FILE   write the SHA-256 of every kernel's buffer, of the first image in a first run\n"
    "  --library PATH   another library than libvitc_model.so beside this program\n"
    "  --sys PATH       another folder than /sys to read what it says of temperature and throttling\n"
    "\n"
    "The last batch is filled up with the last image. Timings are printed as one JSON object; an error is one sentence\n"
    "and exit code 1.\n";

void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("vitc-run: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(1);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static const vitc_symbol imports[] = {
    {"calloc", (void *)calloc},
    {"close", (void *)close},
    {"free", (void *)free},
    {"getauxval", (void *)getauxval},
    {"malloc", (void *)malloc},
    {"memchr", (void *)(void *(*)(const void *, int, size_t))memchr},
    {"memcmp", (void *)memcmp},
    {"memcpy", (void *)memcpy},
    {"memmove", (void *)memmove},
    {"memset", (void *)memset},
    {"munmap", (void *)munmap},
    {"open", (void *)open},
    {"posix_memalign", (void *)posix_memalign},
    {"pthread_create", (void *)pthread_create},
    {"pthread_join", (void *)pthread_join},
    {"sched_yield", (void *)sched_yield},
    {"strchr", (void *)(char *(*)(const char *, int))strchr},
    {"strcmp", (void *)strcmp},
    {"strlen", (void *)strlen},
    {"syscall", (void *)syscall},
    {NULL, NULL},
};

typedef struct {
  vitc_status (*create_with)(const vitc_options *, vitc_model **);
  int32_t (*threads)(vitc_model *);
  vitc_status (*run_ports)(vitc_model *, const vitc_call *);
  vitc_status (*get_entry)(int32_t, vitc_entry *);
  vitc_status (*get_port)(int32_t, int32_t, vitc_port *);
  void (*get_info)(vitc_info *);
  void (*destroy)(vitc_model *);
  const char *(*status_text)(vitc_status);
  vitc_status (*preprocess)(const uint8_t *, int32_t, int32_t, size_t, float *);
  vitc_status (*preprocess_u8)(const uint8_t *, int32_t, int32_t, size_t, uint8_t *);
  detector boxes;
} api;

static void *need(const vitc_library *library, const char *name) {
  void *symbol = vitc_library_symbol(library, name);
  if (!symbol) die("the library has no function %s; it was not made by this version of vitc", name);
  return symbol;
}

static api load(const char *path, const char *digest) {
  char error[PATH_BYTES + 256];
  vitc_library *library = vitc_library_open(path, digest, imports, error, sizeof error);
  if (!library) die("%s", error);
  api result;
  *(void **)&result.create_with = need(library, "vitc_create_with");
  *(void **)&result.threads = need(library, "vitc_threads");
  *(void **)&result.run_ports = need(library, "vitc_run_ports");
  *(void **)&result.get_entry = need(library, "vitc_get_entry");
  *(void **)&result.get_port = need(library, "vitc_get_port");
  *(void **)&result.get_info = need(library, "vitc_get_info");
  *(void **)&result.destroy = need(library, "vitc_destroy");
  *(void **)&result.status_text = need(library, "vitc_status_text");
  *(void **)&result.preprocess = need(library, "vitc_preprocess");
  *(void **)&result.preprocess_u8 = need(library, "vitc_preprocess_u8");
  *(void **)&result.boxes.detect = vitc_library_symbol(library, "vitc_detect");
  *(void **)&result.boxes.label = vitc_library_symbol(library, "vitc_label");
  result.boxes.status_text = result.status_text;
  return result;
}

typedef struct {
  FILE *file;
  int32_t images; /* real ones in this batch; the rest is filling */
  int failed;
} trace;

static void write_buffer(void *user, int32_t image, int32_t step, const char *name,
                         const void *data, size_t bytes) {
  (void)step;
  (void)name;
  trace *out = user;
  if (image < out->images) out->failed |= fwrite(data, 1, bytes, out->file) != bytes;
}

typedef struct {
  int64_t *sum; /* ns of each step */
  int64_t last;
} profile;

static void add_time(void *user, int32_t image, int32_t step, const char *name, const void *data,
                     size_t bytes) {
  (void)image;
  (void)name;
  (void)data;
  (void)bytes;
  profile *times = user;
  int64_t time = now();
  times->sum[step] += time - times->last;
  times->last = now();
}

/* --- what the system says of temperature and throttling, as it says it -------------------------------------------- */

static const char *sys_path = "/sys";

/* Files below /sys; # counts from 0 to the first that there is not, or as far as the row before, if `again`. */
static const struct {
  const char *name;
  int again;
} sys_files[] = {
    {"class/thermal/thermal_zone#/temp", 0},
    {"class/thermal/cooling_device#/type", 0},
    {"class/thermal/cooling_device#/cur_state", 1},
    {"devices/system/cpu/cpu#/thermal_throttle/core_throttle_count", 0},
    {"devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 0},
    {"devices/system/cpu/cpu0/cpufreq/scaling_governor", 0},
    {"devices/platform/soc/soc:firmware/get_throttled", 0},
};

/* Print the first line of a file as a field of JSON; 0 if there is none. */
static int print_sys_file(FILE *out, const char *name, const char *between) {
  char path[512], line[64];
  if (snprintf(path, sizeof path, "%s/%s", sys_path, name) >= (int)sizeof path) return 0;
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  char *read = fgets(line, sizeof line, file);
  fclose(file);
  if (!read) return 0;
  line[strcspn(line, "\n")] = 0;
  for (char *at = line; *at; at++) /* it goes between quotes */
    if (*at == '"' || *at == '\\' || *at < ' ' || *at > '~') *at = '?';
  fprintf(out, "%s\"/sys/%s\": \"%s\"", between, name, line);
  return 1;
}

/* The files as a JSON object, for whoever knows what they mean. */
static char *read_condition(void) {
  char *text = NULL;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  if (!out) die("not enough memory");
  int before = 0, any = 0;
  fputc('{', out);
  for (size_t i = 0; i < sizeof sys_files / sizeof sys_files[0]; i++) {
    const char *name = sys_files[i].name, *mark = strchr(name, '#');
    int most = !mark ? 1 : sys_files[i].again ? before : 1024, at = 0;
    for (; at < most; at++) {
      char one[256];
      if (mark) snprintf(one, sizeof one, "%.*s%d%s", (int)(mark - name), name, at, mark + 1);
      if (print_sys_file(out, mark ? one : name, any ? ", " : "")) any = 1;
      else if (!sys_files[i].again) break;
    }
    before = at;
  }
  fputc('}', out);
  if (fclose(out)) die("not enough memory");
  return text;
}

static int32_t number(const char *option, const char *text, int32_t low, int32_t high) {
  char *end;
  long value = text ? strtol(text, &end, 10) : low - 1L;
  if (!text || !*text || *end || value < low || value > high)
    die("%s wants a number from %d to %d", option, (int)low, (int)high);
  return (int32_t)value;
}

static float share(const char *option, const char *text) {
  char *end;
  float value = strtof(text, &end);
  if (!*text || *end || !(value >= 0.0f && value <= 1.0f)) die("%s wants a number from 0 to 1", option);
  return value;
}

static void pin_to_first_cpu(void) {
  cpu_set_t allowed, own;
  CPU_ZERO(&own);
  if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    CPU_SET(cpu, &own);
    sched_setaffinity(0, sizeof own, &own);
    break;
  }
}

static void print_times(const char *key, const int64_t *values, int64_t count) {
  printf(", \"%s\": [", key);
  for (int64_t i = 0; i < count; i++) printf("%s%lld", i ? ", " : "", (long long)values[i]);
  printf("]");
}

/* --- the run ------------------------------------------------------------------------------------------------------ */

typedef struct {
  api functions;
  vitc_model *model;
  vitc_info info;
  vitc_entry entry;
  port_array array[VITC_MAX_PORTS];
  int64_t images, n;
} runner;

/* The entry of a name; without one, that of a number. */
static void find_entry(runner *run, const char *name, int32_t number) {
  for (; number < run->info.entries; number++)
    if (!run->functions.get_entry(number, &run->entry) && (!name || !strcmp(run->entry.name, name))) break;
  if (number == run->info.entries) die("there is no entry %s", name);
  for (int32_t i = 0; i < run->entry.ports; i++)
    if (run->functions.get_port(number, i, &run->array[i].port)) die("the library does not know its own ports");
}

/* Give the port that NAME=FILE names its file. */
static void name_file(runner *run, const char *text, int output) {
  const char *file = strchr(text, '=');
  int32_t from = output ? run->entry.inputs : 0, to = output ? run->entry.ports : run->entry.inputs;
  if (!file || !file[1]) die("%s wants NAME=FILE, not %s", output ? "--output" : "--input", text);
  for (int32_t i = from; i < to; i++) {
    const char *name = run->array[i].port.name;
    if (strlen(name) != (size_t)(file - text) || strncmp(name, text, strlen(name))) continue;
    if (run->array[i].path) die("%s is named twice", name);
    run->array[i].path = file + 1;
    return;
  }
  die("there is no %s %.*s", output ? "output" : "input", (int)(file - text), text);
}

static int is_picture(const char *path) {
  const char *suffix = strrchr(path, '.');
  return suffix && !strcmp(suffix, ".ppm");
}

/* Make the input of a classifier of a picture. */
static void read_picture(runner *run, port_array *array) {
  int32_t height, width;
  if (!run->info.classes || run->entry.ports != 2) die("%s: pictures are for a classifier; give arrays", array->path);
  unsigned char *pixels = read_ppm(array->path, &height, &width);
  array->data = malloc(array_bytes(&array->port, 0));
  if (!array->data) die("not enough memory");
  const api *library = &run->functions;
  vitc_status status = array->port.dtype == VITC_UINT8
                           ? library->preprocess_u8(pixels, height, width, 0, array->data)
                           : library->preprocess(pixels, height, width, 0, (float *)(void *)array->data);
  if (status == VITC_ERROR_PORT) die("%s: the model does not say how pictures become its input", array->path);
  if (status) die("%s: %s", array->path, library->status_text(status));
  free(pixels);
  run->images = 1;
}

/* Read the inputs, with the last image as often as fills the last batch, and make room for the outputs. */
static void read_inputs(runner *run) {
  run->images = run->n = -1;
  for (int32_t i = 0; i < run->entry.inputs; i++) {
    if (!run->array[i].path) die("there is no array for the input %s; name it with --input", run->array[i].port.name);
    if (is_picture(run->array[i].path)) read_picture(run, &run->array[i]);
    else read_array(&run->array[i], &run->images, &run->n);
  }
  if (run->images < 0) run->images = 1;
  if (run->n < 0) run->n = 0;
  for (int32_t i = 0; i < run->entry.inputs; i++) need_finite(&run->array[i], run->images, run->n);
  int64_t padded = (run->images + run->info.batch - 1) / run->info.batch * run->info.batch;
  for (int32_t i = 0; i < run->entry.ports; i++) {
    port_array *array = &run->array[i];
    size_t count = array->port.per_image ? (size_t)padded : 1;
    array->bytes = array_bytes(&array->port, run->n);
    unsigned char *data = realloc(array->data, array->bytes * count + 1);
    if (!data) die("not enough memory");
    array->data = data;
    if (i < run->entry.inputs && array->port.per_image)
      for (size_t image = (size_t)run->images; image < count; image++)
        memcpy(data + image * array->bytes, data + (size_t)(run->images - 1) * array->bytes, array->bytes);
  }
}

static void run_batch(const runner *run, int64_t batch, vitc_observer observer, void *user) {
  vitc_array arrays[VITC_MAX_PORTS];
  size_t images = (size_t)run->info.batch;
  for (int32_t i = 0; i < run->entry.ports; i++) {
    const port_array *array = &run->array[i];
    size_t count = array->port.per_image ? images : 1, start = array->port.per_image ? (size_t)batch * images : 0;
    arrays[i] = (vitc_array){array->port.name, array->data + start * array->bytes, count * array->bytes};
  }
  const vitc_call call = {sizeof call, run->entry.name, arrays, run->entry.ports, run->n, observer, user};
  vitc_status status = run->functions.run_ports(run->model, &call);
  if (status) die("%s", run->functions.status_text(status));
}

/* A model on threads of its own. Workers choose their own processor among those allowed, so they are made before this thread
 * is pinned. */
static int32_t create(runner *run, int32_t threads, uint32_t flags) {
  const vitc_options options = {sizeof options, threads, flags};
  vitc_status status = run->functions.create_with(&options, &run->model);
  if (status) die("%s", run->functions.status_text(status));
  if (flags & VITC_PIN_THREADS) pin_to_first_cpu();
  int32_t used = run->functions.threads(run->model);
  if (used < threads)
    fprintf(stderr, "vitc-run: note: %d threads asked for, %d used, as many as there are processors\n", (int)threads,
            (int)used);
  return used;
}

/* Run an entry on its stored images, on a fresh workspace, and compare; whether it has any. */
static int test_entry(runner *run, const self_test *test, int32_t threads, uint32_t flags, int32_t *taps, float *worst) {
  const char *prefix = run->info.entries > 1 ? run->entry.name : NULL;
  int32_t inputs = run->entry.inputs, outputs = run->entry.ports - inputs;
  digest_list list;
  if (!has_self_test(test, prefix, inputs, &list)) return 0;
  for (int32_t i = 0; i < run->entry.ports; i++) run->array[i].data = NULL, run->array[i].path = NULL;
  for (int32_t i = 0; i < inputs; i++) run->array[i].path = self_test_path(test, prefix, "", i, inputs);
  read_inputs(run);
  create(run, threads, flags);
  run_batch(run, 0, list.at ? take_digest : NULL, &list);
  if (list.at && *list.at) die("%s: it does not belong to this model", list.path);
  for (int32_t i = 0; i < outputs; i++) {
    const char *expected = self_test_path(test, prefix, ".expected", i, outputs);
    float apart = compare_outputs(expected, &run->array[inputs + i], run->images);
    if (apart > *worst) *worst = apart;
  }
  *taps += list.taps;
  run->functions.destroy(run->model);
  return 1;
}

/* Test one entry, or all: one of several may have no image that is far enough from every threshold. */
static int test_entries(runner *run, const self_test *test, const char *name, int32_t threads, uint32_t flags) {
  int32_t tested = 0, taps = 0;
  float worst = 0;
  for (int32_t number = 0; number < (name ? 1 : run->info.entries); number++) {
    find_entry(run, name, number);
    if (test_entry(run, test, threads, flags, &taps, &worst)) tested++;
    else fprintf(stderr, "vitc-run: note: the entry %s has no stored image\n", run->entry.name);
  }
  if (!tested) die("there is nothing to test with: the model was compiled without a stored image");
  printf("{\"self_test\": \"passed\", \"entries\": %d, \"taps\": %d, \"max_logit_difference\": %g}\n", (int)tested, (int)taps,
         (double)worst);
  return 0;
}

int main(int argc, char **argv) {
  const char *paths[2] = {NULL, NULL}, *trace_path = NULL, *digests_path = NULL, *library_path = NULL, *entry = NULL;
  const char *named[2 * VITC_MAX_PORTS];
  int32_t threads = 1, repeat = 1, warmup = 0, positional = 0, profiled = 0, tested = 0, pinned = 0, files = 0;
  int32_t boxes = 0;
  float score = 0.2f;
  int outputs[2 * VITC_MAX_PORTS];
  uint32_t flags = 0;
  for (int i = 1; i < argc; i++) {
    const char *option = argv[i];
    if (option[0] != '-' && positional < 2) paths[positional++] = option;
    else if (strcmp(option, "--help") == 0 || strcmp(option, "-h") == 0) return fputs(usage, stdout) < 0;
    else if (strcmp(option, "--pin") == 0) pinned = 1, flags |= VITC_PIN_THREADS;
    else if (strcmp(option, "--oversubscribe") == 0) flags |= VITC_OVERSUBSCRIBE;
    else if (strcmp(option, "--profile") == 0) profiled = 1;
    else if (strcmp(option, "--self-test") == 0) tested = 1;
    else if (strcmp(option, "--boxes") == 0) boxes = 1;
    else if (i + 1 >= argc) die("%s is not an option or wants a value", option);
    else if (strcmp(option, "--input") == 0 || strcmp(option, "--output") == 0) {
      if (files == 2 * VITC_MAX_PORTS) die("more arrays than a model has ports");
      outputs[files] = option[2] == 'o';
      named[files++] = argv[++i];
    }
    else if (strcmp(option, "--entry") == 0) entry = argv[++i];
    else if (strcmp(option, "--score") == 0) score = share(option, argv[++i]);
    else if (strcmp(option, "--threads") == 0) threads = number(option, argv[++i], 1, VITC_MAX_THREADS);
    else if (strcmp(option, "--repeat") == 0) repeat = number(option, argv[++i], 1, 1000000);
    else if (strcmp(option, "--warmup") == 0) warmup = number(option, argv[++i], 0, 1000000);
    else if (strcmp(option, "--trace") == 0) trace_path = argv[++i];
    else if (strcmp(option, "--digests") == 0) digests_path = argv[++i];
    else if (strcmp(option, "--library") == 0) library_path = argv[++i];
    else if (strcmp(option, "--sys") == 0) sys_path = argv[++i];
    else die("%s is not an option", option);
  }
  if (boxes && (tested || files || positional != 1 || entry)) die("--boxes wants one PICTURE.ppm; see vitc-run --help");
  if (!boxes && (tested ? positional || files : positional != (files ? 0 : 2)))
    die("wanted INPUT.npy OUTPUT.npy, or each by its name, or --self-test alone; see vitc-run --help");

  char beside[PATH_BYTES];
  if (!library_path) {
    ssize_t length = readlink("/proc/self/exe", beside, sizeof beside - 32);
    if (length < 0) die("cannot find its own folder; name the library with --library");
    beside[length] = 0;
    char *slash = strrchr(beside, '/');
    strcpy(slash ? slash + 1 : beside, "libvitc_model.so");
    library_path = beside;
  }
  self_test test;
  if (tested) open_self_test(&test, library_path);
  char *before = read_condition();
  int64_t started = now();
  static runner run;
  run.functions = load(library_path, tested ? test.recorded : NULL);
  run.functions.get_info(&run.info);
  if (run.info.abi_version != VITC_ABI_VERSION)
    die("%s has interface version %u, this runner wants %u", library_path, (unsigned)run.info.abi_version,
        (unsigned)VITC_ABI_VERSION);
  if (tested) return test_entries(&run, &test, entry, threads, flags);
  if (boxes) {
    if (!run.functions.boxes.detect) die("%s finds no boxes: --boxes is for a detector", library_path);
    create(&run, threads, flags);
    print_boxes(&run.functions.boxes, run.model, paths[0], score);
    run.functions.destroy(run.model);
    return 0;
  }
  find_entry(&run, entry, 0);
  int32_t inputs = run.entry.inputs, given = run.entry.ports - inputs;
  if (positional && (inputs != 1 || given != 1))
    die("the model has %d inputs and %d outputs; name each with --input and --output", (int)inputs, (int)given);
  if (positional) run.array[0].path = paths[0], run.array[1].path = paths[1];
  for (int32_t i = 0; i < files; i++) name_file(&run, named[i], outputs[i]);
  read_inputs(&run);
  int64_t batches = (run.images + run.info.batch - 1) / run.info.batch;
  int64_t *latencies = malloc((size_t)(batches * repeat) * sizeof(int64_t));
  int64_t *step_times = calloc((size_t)run.entry.steps, sizeof(int64_t));
  if (!latencies || !step_times) die("not enough memory");

  int32_t used = create(&run, threads, flags);

  if (digests_path) {
    digest_list list = {fopen(digests_path, "wb"), digests_path, NULL, 0};
    if (!list.file) die("%s: %s", digests_path, strerror(errno));
    run_batch(&run, 0, take_digest, &list);
    if (ferror(list.file) | fclose(list.file)) die("%s: could not be written", digests_path);
  }
  int64_t ready = now(), first = 0;
  trace out = {NULL, 0, 0};
  if (trace_path && !(out.file = fopen(trace_path, "wb"))) die("%s: %s", trace_path, strerror(errno));
  for (int64_t pass = -(int64_t)warmup; pass < repeat; pass++) {
    for (int64_t batch = 0; batch < batches; batch++) {
      int64_t begun = now();
      profile times = {step_times, begun};
      run_batch(&run, batch, profiled && pass >= 0 ? add_time : NULL, &times);
      int64_t spent = now() - begun;
      if (!first) first = now();
      if (pass >= 0) latencies[pass * batches + batch] = spent;
    }
  }
  char *after = read_condition();
  for (int64_t batch = 0; out.file && batch < batches; batch++) {
    int64_t left = run.images - batch * run.info.batch;
    out.images = (int32_t)(left < run.info.batch ? left : run.info.batch);
    run_batch(&run, batch, write_buffer, &out);
  }
  if (out.file && (fclose(out.file) || out.failed)) die("%s: could not be written", trace_path);
  for (int32_t i = inputs; i < run.entry.ports; i++)
    if (run.array[i].path) write_array(&run.array[i], run.images, run.n);

  printf("{\"target\": \"%s\", \"threads\": %d, \"threads_asked\": %d, \"pinned\": %s, \"images\": %lld, \"batch\": %d, \"repeat\": %d, "
         "\"workspace_bytes\": %lld, \"load_ns\": %lld, \"start_ns\": %lld",
         run.info.target, (int)used, (int)threads, pinned ? "true" : "false", (long long)run.images, (int)run.info.batch,
         (int)repeat, (long long)run.info.workspace_bytes, (long long)(ready - started), (long long)(first - started));
  print_times("latency_ns", latencies, batches * repeat);
  if (profiled) print_times("step_ns", step_times, run.entry.steps);
  printf(", \"system_files\": {\"before\": %s, \"after\": %s}}\n", before, after);
  run.functions.destroy(run.model);
  return 0;
}
