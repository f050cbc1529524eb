/* vitc: search an index of images (`vitc index build`) with a library that has a scan among its entries.
 *
 * An index is mapped read-only: what becomes of the file later is not seen. Its parts are compared with their checksums where
 * they are read first. One index is for one thread at a time, several are not; nothing is allocated by a search.
 *
 *     vitc_index *index;
 *     vitc_found best[10];
 *     int32_t count;
 *     if (vitc_index_open("photos.vidx", NULL, &index)) ...
 *     vitc_search(model, index, "score", query, query_bytes, 10, best, &count);   // query: what the text tower gives, packed
 */
#ifndef VITC_SEARCH_H
#define VITC_SEARCH_H

#include "vitc_model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  VITC_SEARCH_OK = 0,
  VITC_SEARCH_ARGUMENT = 1, /* a null pointer, a count that is negative, an image that there is not */
  VITC_SEARCH_FILE = 2,     /* the file cannot be read, or is no index */
  VITC_SEARCH_DAMAGED = 3,  /* it is cut off, damaged, or of another version: build it again */
  VITC_SEARCH_MODEL = 4,    /* it was built with another model */
  VITC_SEARCH_MEMORY = 5,   /* there is not enough memory */
  VITC_SEARCH_ENTRY = 6,    /* the entry is no scan of so many texts, or its sizes are not those of index and query */
  VITC_SEARCH_RUN = 7       /* the handle of the model is of no use: destroyed, or running in another thread */
} vitc_search_status;

typedef struct vitc_index vitc_index;

typedef struct {
  int64_t images;
  int32_t width;     /* bits of a vector */
  int32_t tokens;    /* vectors of an image */
  const char *model; /* SHA-256 of the model that encoded the images, in hexadecimal */
} vitc_index_info;

typedef struct {
  int64_t image; /* its number in the index */
  int32_t score; /* a * d - 2 * the sum of the smallest Hamming distances */
} vitc_found;

/* Map an index. `model`: the SHA-256 that it has to be of, or null for any. */
VITC_API vitc_search_status vitc_index_open(const char *path, const char *model, vitc_index **index);

/* Let it go; null is ignored. */
VITC_API void vitc_index_close(vitc_index *index);

VITC_API void vitc_index_get_info(const vitc_index *index, vitc_index_info *info);

/* Set the name of an image; it stays until the index is closed. */
VITC_API vitc_search_status vitc_index_name(vitc_index *index, int64_t image, const char **name);

/* Find the `most` images whose scores are largest, best first; of equal ones the earlier first. The documents of the entry are
 * the first vectors of the images if it takes one of each, else all. `query` is packed, [a, bytes of a vector]. `count` is set
 * to how many were found: fewer where the index has fewer. */
VITC_API vitc_search_status vitc_search(vitc_model *model, vitc_index *index, const char *entry, const uint8_t *query,
                                        size_t query_bytes, int32_t most, vitc_found *found, int32_t *count);

/* The same for several texts at once, by an entry whose `query` is [texts, a, bytes of a vector]: a part of the index meets all
 * of them while it is in the cache. `found` has room for `most` of each text, one text's after the other's; `count` is set to how
 * many each has. */
VITC_API vitc_search_status vitc_search_texts(vitc_model *model, vitc_index *index, const char *entry, const uint8_t *queries,
                                              size_t query_bytes, int32_t most, vitc_found *found, int32_t *count);

/* Score images that were found by another entry again, such as those of a fast scan by all their vectors, and order them. */
VITC_API vitc_search_status vitc_rank(vitc_model *model, vitc_index *index, const char *entry, const uint8_t *query,
                                      size_t query_bytes, vitc_found *found, int32_t count);

/* One sentence for a status; never null. */
VITC_API const char *vitc_search_status_text(vitc_search_status status);

#ifdef __cplusplus
}
#endif
#endif
