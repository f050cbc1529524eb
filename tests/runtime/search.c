/* Searches an index with a library, in a static program for any processor:
 * search LIBRARY INDEX QUERY COUNT ENTRY [MODEL]. Prints image, score and name a line, or what is wrong. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vitc_loader.h"
#include "vitc_search.h"

#define NEEDS(name) {#name, (void *)name}

static const vitc_symbol imports[] = {
    NEEDS(calloc), NEEDS(close), NEEDS(free), NEEDS(getauxval), NEEDS(malloc), NEEDS(memcmp), NEEDS(memcpy),
    NEEDS(memmove), NEEDS(memset), NEEDS(munmap), NEEDS(open), NEEDS(posix_memalign), NEEDS(pthread_create),
    NEEDS(pthread_join), NEEDS(sched_yield), NEEDS(strcmp), NEEDS(strlen), NEEDS(syscall),
    {"memchr", (void *)(void *(*)(const void *, int, size_t))memchr},
    {"strchr", (void *)(char *(*)(const char *, int))strchr},
    {NULL, NULL},
};

#define FUNCTION(library, name) ((__typeof__(&name))vitc_library_symbol(library, #name))

int main(int count, char **arguments) {
  char error[512];
  vitc_library *library = count > 5 ? vitc_library_open(arguments[1], NULL, imports, error, sizeof error) : NULL;
  if (!library) return fprintf(stderr, "%s\n", count > 5 ? error : "usage"), 2;
  vitc_index *index;
  vitc_search_status status =
      FUNCTION(library, vitc_index_open)(arguments[2], count > 6 ? arguments[6] : NULL, &index);
  vitc_model *model = NULL;
  if (!status && FUNCTION(library, vitc_create)(2, &model)) return 3;
  static unsigned char query[1 << 16];
  FILE *file = fopen(arguments[3], "rb");
  size_t size = file ? fread(query, 1, sizeof query, file) : 0;
  int32_t most = atoi(arguments[4]), found = 0;
  vitc_found *best = calloc((size_t)most + 1, sizeof *best);
  if (!status) status = FUNCTION(library, vitc_search)(model, index, arguments[5], query, size, most, best, &found);
  for (int32_t i = 0; !status && i < found; i++) {
    const char *name;
    status = FUNCTION(library, vitc_index_name)(index, best[i].image, &name);
    if (!status) printf("%lld %d %s\n", (long long)best[i].image, best[i].score, name);
  }
  if (status) return printf("%s\n", FUNCTION(library, vitc_search_status_text)(status)), 1;
  FUNCTION(library, vitc_index_close)(index);
  FUNCTION(library, vitc_destroy)(model);
  return 0;
}
