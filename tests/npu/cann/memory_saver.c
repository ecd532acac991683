/* Stands in for the library of torch_memory_saver in hook mode "torch": the two functions of a pluggable allocator,
   and pause and resume of what they allocated.

   Read at sgl-project/sgl-kernel-npu, tag 2026.6.0, contrib/torch_memory_saver/csrc. References below are to its
   core.cpp, entrypoint.cpp and utils.h. It is linked with libascendcl alone (../python/setup.py:72). */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "acl/acl.h"

/* SIMPLE_CHECK ends the process, also when a library calls it: utils.h:17-24. */
#define CHECK(condition, message)                                                                          \
  do {                                                                                                     \
    if (!(condition)) {                                                                                    \
      fprintf(stderr, "[torch_memory_saver.cpp] %s file=%s func=%s line=%d\n", message, __FILE__, __func__, \
              __LINE__);                                                                                   \
      exit(1);                                                                                             \
    }                                                                                                      \
  } while (false)

/* core.h:9-16 */
struct allocation {
  void *address;
  size_t nbytes;
  int device;
  aclrtDrvMemHandle physical;
  char *tag;
  bool backed_up;
  void *backup; /* on the host; kept from the first pause until the allocation is freed: core.cpp:82,131 */
  struct allocation *next;
};

static struct allocation *allocations;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Of the thread: entrypoint.cpp:9-35. Without TMS_INIT_ENABLE a thread starts outside any region. */
static _Thread_local bool in_region, with_backup;
static _Thread_local char region_tag[64] = "default";

void *tms_torch_malloc(ssize_t size, int device, aclrtStream stream);
void tms_torch_free(void *address, ssize_t size, int device, aclrtStream stream);
void tms_set_current_tag(const char *tag);
void tms_set_interesting_region(bool value);
bool tms_get_interesting_region(void);
void tms_set_enable_cpu_backup(bool value);
void tms_pause(const char *tag);
void tms_resume(const char *tag);

/* utils.h:27-38 */
static aclrtDrvMemHandle physical_memory(size_t nbytes, int device) {
  aclrtPhysicalMemProp wanted = {
      .handleType = ACL_MEM_HANDLE_TYPE_NONE,
      .allocationType = ACL_MEM_ALLOCATION_TYPE_PINNED,
      .memAttr = ACL_HBM_MEM_HUGE,
      .location = {.id = (uint32_t)device, .type = ACL_MEM_LOCATION_TYPE_DEVICE},
  };
  aclrtDrvMemHandle handle;
  CHECK(aclrtMallocPhysical(&handle, nbytes, &wanted, 0) == ACL_SUCCESS, "aclrtMallocPhysical failed");
  return handle;
}

/* entrypoint.cpp:58-71, core.cpp:12-33: it never returns NULL, so torch never sees that memory is short. */
void *tms_torch_malloc(ssize_t size, int device, aclrtStream stream) {
  (void)stream;
  CHECK(in_region, "only support interesting region");
  struct allocation *made = calloc(1, sizeof *made);
  CHECK(made, "out of host memory");
  made->nbytes = (size_t)size;
  made->device = device;
  made->physical = physical_memory(made->nbytes, device);
  CHECK(aclrtReserveMemAddress(&made->address, made->nbytes, 0, NULL, 0) == ACL_SUCCESS,
        "aclrtReserveMemAddress failed");
  CHECK(aclrtMapMem(made->address, made->nbytes, 0, made->physical, 0) == ACL_SUCCESS, "aclrtMapMem failed");
  made->tag = strdup(region_tag);
  made->backed_up = with_backup;
  pthread_mutex_lock(&lock);
  made->next = allocations;
  allocations = made;
  pthread_mutex_unlock(&lock);
  return made->address;
}

static struct allocation *removed(const void *address) {
  pthread_mutex_lock(&lock);
  struct allocation **at = &allocations, *found;
  while (*at && (*at)->address != address) at = &(*at)->next;
  if ((found = *at)) *at = found->next;
  pthread_mutex_unlock(&lock);
  return found;
}

/* entrypoint.cpp:73-82, core.cpp:35-69: only inside a region, and not while the allocation is offloaded. */
void tms_torch_free(void *address, ssize_t size, int device, aclrtStream stream) {
  (void)size, (void)device, (void)stream;
  CHECK(in_region, "only support interesting region");
  struct allocation *found = removed(address);
  if (!found) {
    aclrtFree(address);
    return;
  }
  CHECK(aclrtSynchronizeDeviceWithTimeout(3000) == ACL_SUCCESS, "aclrtSynchronizeDeviceWithTimeout failed.");
  CHECK(aclrtUnmapMem(address) == ACL_SUCCESS, "aclrtUnmapMem failed.");
  CHECK(aclrtFreePhysical(found->physical) == ACL_SUCCESS, "aclrtFreePhysical failed.");
  CHECK(aclrtReleaseMemAddress(address) == ACL_SUCCESS, "aclrtReleaseMemAddress failed.");
  CHECK(!found->backup || aclrtFreeHost(found->backup) == ACL_SUCCESS, "aclrtFreeHost failed.");
  free(found->tag);
  free(found);
}

/* entrypoint.cpp:90-105 */
void tms_set_current_tag(const char *tag) {
  CHECK(tag && strlen(tag) < sizeof region_tag, "the tag is too long for this stand-in");
  strcpy(region_tag, tag);
}
void tms_set_interesting_region(bool value) { in_region = value; }
bool tms_get_interesting_region(void) { return in_region; }
void tms_set_enable_cpu_backup(bool value) { with_backup = value; }

/* No tag: all allocations. entrypoint.cpp:107-115, core.cpp:77,116. */
static bool selected(const struct allocation *one, const char *tag) {
  return !tag || !*tag || !strcmp(one->tag, tag);
}

/* core.cpp:71-106 */
void tms_pause(const char *tag) {
  pthread_mutex_lock(&lock);
  for (struct allocation *one = allocations; one; one = one->next) {
    if (!selected(one, tag)) continue;
    if (one->backed_up) {
      if (!one->backup) aclrtMallocHost(&one->backup, one->nbytes);
      CHECK(one->backup, "cpu_backup should not be nullptr");
      /* The result is not checked: core.cpp:87. */
      aclrtMemcpy(one->backup, one->nbytes, one->address, one->nbytes, ACL_MEMCPY_DEVICE_TO_HOST);
    }
    CHECK(aclrtUnmapMem(one->address) == ACL_SUCCESS, "aclrtUnmapMem failed.");
    CHECK(aclrtFreePhysical(one->physical) == ACL_SUCCESS, "aclrtFreePhysical failed.");
  }
  pthread_mutex_unlock(&lock);
}

/* core.cpp:108-147 */
void tms_resume(const char *tag) {
  pthread_mutex_lock(&lock);
  for (struct allocation *one = allocations; one; one = one->next) {
    if (!selected(one, tag)) continue;
    one->physical = physical_memory(one->nbytes, one->device);
    /* Neither this result nor that of the copy is checked: core.cpp:123,129. */
    aclrtMapMem(one->address, one->nbytes, 0, one->physical, 0);
    if (one->backed_up) {
      CHECK(one->backup, "cpu_backup should not be nullptr");
      aclrtMemcpy(one->address, one->nbytes, one->backup, one->nbytes, ACL_MEMCPY_HOST_TO_DEVICE);
    }
  }
  pthread_mutex_unlock(&lock);
}
