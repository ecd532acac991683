/* Physical memory and the addresses it is mapped at, as expandable segments and torch_memory_saver use them
   (torch_npu/csrc/core/npu/NPUCachingAllocator.cpp, ExpandableSegment; sgl-kernel-npu,
   contrib/torch_memory_saver/csrc/core.cpp). */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "account.h"
#include "acl/acl_rt.h"
#include "acl/error_codes/rt_error_codes.h"
#include "memory.h"

#define MAGIC 0x9b15ca1

struct physical {
  int magic;
  int chip;
  int device;
  int file;
  size_t nbytes;
  int mapped; /* how often */
};

static int wrong(const char *name, const char *what) {
  return account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s: %s", name, what);
}

static struct physical *known(aclrtDrvMemHandle handle) {
  struct physical *physical = handle;
  return physical && physical->magic == MAGIC ? physical : NULL;
}

aclError aclrtMallocPhysical(aclrtDrvMemHandle *handle, size_t size, const aclrtPhysicalMemProp *prop,
                             uint64_t flags) {
  if (!handle || !prop || flags || !size || size % HUGE_PAGE) return wrong(__func__, "not of 2 MiB pages");
  if (prop->location.type != ACL_MEM_LOCATION_TYPE_DEVICE) return wrong(__func__, "not on a device");
  int device = (int)prop->location.id, chip = account_chip(device);
  if (chip < 0) return account_complain(ACL_ERROR_RT_INVALID_DEVICEID, "%s on device %d", __func__, device);
  int code = account_fault(__func__, chip);
  if (!code) code = account_take(chip, KIND_PHYSICAL, size);
  if (code) return code;
  struct physical *physical = malloc(sizeof *physical);
  int file = memory_file(size);
  if (!physical || file < 0) {
    account_release(chip, KIND_PHYSICAL, size);
    free(physical);
    return account_complain(ACL_ERROR_RT_RESOURCE_ALLOC_FAIL, "%s: no host memory for %zu bytes", __func__, size);
  }
  *physical = (struct physical){.magic = MAGIC, .chip = chip, .device = device, .file = file, .nbytes = size};
  *handle = physical;
  account_record(__func__, chip, size);
  return ACL_SUCCESS;
}

aclError aclrtFreePhysical(aclrtDrvMemHandle handle) {
  struct physical *physical = known(handle);
  if (!physical) return wrong(__func__, "no handle of aclrtMallocPhysical");
  if (physical->mapped) return wrong(__func__, "the memory is still mapped");
  close(physical->file);
  account_release(physical->chip, KIND_PHYSICAL, physical->nbytes);
  account_record(__func__, physical->chip, physical->nbytes);
  physical->magic = 0;
  free(physical);
  return ACL_SUCCESS;
}

static void *reserve(void *at, size_t size) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED : 0);
  return mmap(at, size, PROT_NONE, flags, -1, 0);
}

/* Of any size: torch_npu tries it with 512 bytes (NPUAllocatorConfig.cpp, parseExpandableSegments). */
aclError aclrtReserveMemAddress(void **virPtr, size_t size, size_t alignment, void *expectPtr, uint64_t flags) {
  (void)flags; /* of the page type */
  if (!virPtr || !size || alignment || expectPtr) return wrong(__func__, "not as acl_rt.h has it");
  size = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  char *around = reserve(NULL, size + HUGE_PAGE); /* one page more, for the alignment */
  if (around == MAP_FAILED) return account_complain(ACL_ERROR_RT_RESOURCE_ALLOC_FAIL, "%s: no addresses", __func__);
  size_t before = (HUGE_PAGE - (uintptr_t)around % HUGE_PAGE) % HUGE_PAGE;
  if (before) munmap(around, before);
  munmap(around + before + size, HUGE_PAGE - before);
  ranges_lock();
  ranges_add((struct range){.begin = around + before, .nbytes = size, .source = RESERVED, .chip = -1, .file = -1});
  ranges_unlock();
  *virPtr = around + before;
  return ACL_SUCCESS;
}

aclError aclrtReleaseMemAddress(void *virPtr) {
  const char *failure = NULL;
  ranges_lock();
  struct range *found = ranges_at(virPtr, RESERVED);
  if (!found) {
    failure = "not an address of aclrtReserveMemAddress";
  } else if (ranges_overlapping(virPtr, found->nbytes, MAPPED)) {
    failure = "memory is still mapped there";
  } else {
    munmap(virPtr, found->nbytes);
    ranges_remove(found);
  }
  ranges_unlock();
  return failure ? wrong(__func__, failure) : ACL_SUCCESS;
}

aclError aclrtMapMem(void *virPtr, size_t size, size_t offset, aclrtDrvMemHandle handle, uint64_t flags) {
  struct physical *physical = known(handle);
  if (!physical || flags || offset || size != physical->nbytes) return wrong(__func__, "not all of a handle");
  int code = account_fault(__func__, physical->chip);
  if (code) return code;
  const char *failure = NULL;
  ranges_lock();
  struct range *reserved = ranges_overlapping(virPtr, size, RESERVED);
  if (!reserved || reserved->begin > (char *)virPtr ||
      (char *)virPtr + size > reserved->begin + reserved->nbytes || (uintptr_t)virPtr % HUGE_PAGE) {
    failure = "the addresses are not reserved";
  } else if (ranges_overlapping(virPtr, size, MAPPED)) {
    failure = "memory is mapped there already";
  } else if (mmap(virPtr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, physical->file, 0) == MAP_FAILED) {
    failure = "the host cannot map it";
  } else {
    physical->mapped++;
    ranges_add((struct range){.begin = virPtr,
                              .nbytes = size,
                              .source = MAPPED,
                              .chip = physical->chip,
                              .device = physical->device,
                              .file = physical->file,
                              .handle = physical});
  }
  ranges_unlock();
  if (failure) return wrong(__func__, failure);
  account_record(__func__, physical->chip, size);
  return ACL_SUCCESS;
}

aclError aclrtUnmapMem(void *virPtr) {
  ranges_lock();
  struct range *found = ranges_at(virPtr, MAPPED);
  struct range range = found ? *found : (struct range){0};
  if (found) {
    ((struct physical *)range.handle)->mapped--;
    reserve(range.begin, range.nbytes);
    ranges_remove(found);
  }
  ranges_unlock();
  if (!found) return wrong(__func__, "no memory is mapped there");
  account_record(__func__, range.chip, range.nbytes);
  return ACL_SUCCESS;
}
