/* Loads a self-contained shared library into a static program. */
#ifndef VITC_LOADER_H
#define VITC_LOADER_H

#include <stddef.h>

typedef struct {
  const char *name;
  void *address;
} vitc_symbol;

typedef struct vitc_library vitc_library;

/* Map a private copy of the library at `path`, resolving what it imports from `imports` (ends with a null name). With
 * `digest`, 64 hexadecimal digits, the copy must have this SHA-256. Returns null on failure, with one sentence in `error`.
 * The library stays mapped until the program ends. */
vitc_library *vitc_library_open(const char *path, const char *digest, const vitc_symbol *imports, char *error,
                                size_t error_size);

/* Address of an exported symbol, or null. */
void *vitc_library_symbol(const vitc_library *library, const char *name);

#endif
