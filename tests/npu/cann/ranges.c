#include "memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct range *ranges;
static size_t count, capacity;

void ranges_lock(void) { pthread_mutex_lock(&mutex); }
void ranges_unlock(void) { pthread_mutex_unlock(&mutex); }

struct range *ranges_add(struct range range) {
  if (count == capacity) {
    capacity = capacity ? 2 * capacity : 64;
    ranges = realloc(ranges, capacity * sizeof *ranges);
    if (!ranges) abort();
  }
  ranges[count] = range;
  return &ranges[count++];
}

void ranges_remove(struct range *range) { *range = ranges[--count]; }

struct range *ranges_at(const void *address, enum source source) {
  for (size_t i = 0; i < count; i++) {
    if (ranges[i].source == source && ranges[i].begin == address) return &ranges[i];
  }
  return NULL;
}

struct range *ranges_around(const void *address, size_t nbytes) {
  const char *begin = address;
  for (size_t i = 0; i < count; i++) {
    struct range *one = &ranges[i];
    if (one->source == RESERVED || begin < one->begin || begin >= one->begin + one->nbytes) continue;
    return nbytes <= (size_t)(one->begin + one->nbytes - begin) ? one : NULL;
  }
  return NULL;
}

struct range *ranges_overlapping(const char *begin, size_t nbytes, enum source source) {
  for (size_t i = 0; i < count; i++) {
    struct range *one = &ranges[i];
    if (one->source == source && begin < one->begin + one->nbytes && one->begin < begin + nbytes) return one;
  }
  return NULL;
}

struct range *ranges_with_key(const char *key, enum source source) {
  for (size_t i = 0; i < count; i++) {
    if (ranges[i].source == source && !strcmp(ranges[i].key, key)) return &ranges[i];
  }
  return NULL;
}
