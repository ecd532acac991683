/* Keys by which another process maps device memory: aclrtIpcMem*. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "account.h"
#include "acl/acl_rt.h"
#include "acl/error_codes/rt_error_codes.h"
#include "memory.h"

/* What a key says. A process that opens the file checks that it is still the one that was exported. */
struct exported {
  int64_t pid, start;
  uint64_t inode;
  int file, chip;
};

/* Only all of what one aclrtMalloc returned: torch_npu exports whole segments (NPUCachingAllocator.cpp,
   shareIpcHandle). CANN's documentation says nothing of memory that aclrtMapMem has mapped. */
aclError aclrtIpcMemGetExportKey(void *devPtr, size_t size, char *key, size_t len, uint64_t flags) {
  struct stat status;
  (void)flags; /* the importer's pid is never checked */
  ranges_lock();
  struct range *found = ranges_at(devPtr, MALLOCED);
  if (!found || size > found->nbytes || len < KEY_LENGTH || fstat(found->file, &status)) {
    ranges_unlock();
    return account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s of %zu bytes at %p", __func__, size, devPtr);
  }
  memset(key, 0, len);
  snprintf(found->key, sizeof found->key, "%x %" PRIx64 " %" PRIx64 " %x %x", getpid(),
           account_start_time(getpid()), (uint64_t)status.st_ino, found->file, found->chip);
  memcpy(key, found->key, sizeof found->key);
  int chip = found->chip;
  size_t nbytes = found->nbytes;
  ranges_unlock();
  account_record(__func__, chip, nbytes);
  return ACL_SUCCESS;
}

/* Map the file of another process, or say why not. */
static const char *map(const struct exported *exported, struct range *range) {
  char path[64];
  struct stat status;
  if (account_start_time(exported->pid) != exported->start) return "the process that exported it has exited";
  snprintf(path, sizeof path, "/proc/%" PRId64 "/fd/%d", exported->pid, exported->file);
  int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return "the memory has been freed";
  const char *failure = NULL;
  if (fstat(file, &status) || status.st_ino != exported->inode) {
    failure = "the memory has been freed";
  } else {
    range->nbytes = (size_t)status.st_size;
    range->begin = mmap(NULL, range->nbytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (range->begin == MAP_FAILED) failure = "the host cannot map it";
  }
  close(file);
  return failure;
}

/* Memory of another chip is refused, although CANN maps it where two chips can access each other
   (ACL_RT_IPC_MEM_IMPORT_FLAG_ENABLE_PEER_ACCESS): a tensor of that chip would pass for one of this. */
aclError aclrtIpcMemImportByKey(void **devPtr, const char *key, uint64_t flags) {
  struct exported exported = {0};
  (void)flags;
  int device = account_current_device(), chip = account_chip(device);
  if (chip < 0) return account_complain(ACL_ERROR_RT_CONTEXT_NULL, "%s: no device is set", __func__);
  if (sscanf(key, "%" SCNx64 " %" SCNx64 " %" SCNx64 " %x %x", (uint64_t *)&exported.pid, (uint64_t *)&exported.start,
             &exported.inode, (unsigned *)&exported.file, (unsigned *)&exported.chip) != 5) {
    return account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s: not a key", __func__);
  }
  int code = account_fault(__func__, chip);
  if (code) return code;
  if (exported.chip != chip) {
    return account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s: memory of chip %d cannot be mapped on chip %d", __func__,
                            exported.chip, chip);
  }
  struct range range = {.source = IMPORTED, .chip = chip, .device = device, .file = -1};
  const char *failure = map(&exported, &range);
  if (failure) return account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s: %s", __func__, failure);
  snprintf(range.key, sizeof range.key, "%s", key);
  ranges_lock();
  ranges_add(range);
  ranges_unlock();
  account_note(__func__, chip, range.nbytes, ", \"owner\": %" PRId64, exported.pid);
  *devPtr = range.begin;
  return ACL_SUCCESS;
}

/* Called by the importer to unmap and by the exporter before it frees (NPUCachingAllocator.cpp, release_block). */
aclError aclrtIpcMemClose(const char *key) {
  ranges_lock();
  struct range *found = ranges_with_key(key, IMPORTED);
  struct range *own = found ? NULL : ranges_with_key(key, MALLOCED);
  struct range range = found ? *found : own ? *own : (struct range){0};
  if (found) {
    munmap(found->begin, found->nbytes);
    ranges_remove(found);
  }
  if (own) own->key[0] = 0;
  ranges_unlock();
  if (!found && !own) return account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s: an unknown key", __func__);
  account_record(__func__, range.chip, range.nbytes);
  return ACL_SUCCESS;
}
