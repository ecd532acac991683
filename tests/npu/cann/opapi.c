/* libopapi: the only operator that torch_npu calls past PyTorch's dispatcher, where CPU operators stand in for it.

   ProcessGroupHCCL::allgather of a list pads each tensor at its end to a multiple of 512 bytes: byte_alignment in
   torch_npu/csrc/distributed/ProcessGroupHCCL.cpp at 94c0533ba69b (v26.2.0-beta.1-pytorch2.13.0). Signatures:
   aclCreateTensor.md and its neighbors in the documentation of CANN, aclnnConstantPadNd in gitcode.com/cann/ops-math,
   conversion/pad_v3/op_api/aclnn_constant_pad_nd.cpp. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "account.h"
#include "acl/acl_base.h"
#include "acl/acl_rt.h"

typedef struct {
  bool row; /* contiguous, [1, n] */
  char *bytes;
  size_t nbytes;
} aclTensor;

typedef struct {
  const int64_t *values; /* of the caller, until it destroys the array */
  uint64_t size;
} aclIntArray;

typedef struct {
  const aclTensor *input;
  const aclTensor *output;
} aclOpExecutor;

aclTensor *aclCreateTensor(const int64_t *, uint64_t, aclDataType, const int64_t *, int64_t, aclFormat,
                           const int64_t *, uint64_t, void *);
aclIntArray *aclCreateIntArray(const int64_t *, uint64_t);
void *aclCreateScalar(void *, aclDataType);
int aclDestroyTensor(const aclTensor *);
int aclDestroyIntArray(const aclIntArray *);
int aclDestroyScalar(const void *);
int aclnnConstantPadNdGetWorkspaceSize(const aclTensor *, const aclIntArray *, const void *, aclTensor *, uint64_t *,
                                       aclOpExecutor **);
int aclnnConstantPadNd(void *, uint64_t, aclOpExecutor *, aclrtStream);

static int64_t element_size(aclDataType type) {
  switch (type) {
    case ACL_BOOL:
    case ACL_INT8:
    case ACL_UINT8:
      return 1;
    case ACL_INT16:
    case ACL_FLOAT16:
    case ACL_BF16:
      return 2;
    case ACL_INT32:
    case ACL_FLOAT:
      return 4;
    case ACL_INT64:
    case ACL_DOUBLE:
      return 8;
    default:
      return 0;
  }
}

aclTensor *aclCreateTensor(const int64_t *dims, uint64_t number, aclDataType type, const int64_t *strides,
                           int64_t offset, aclFormat format, const int64_t *storage_dims, uint64_t storage_number,
                           void *bytes) {
  (void)format, (void)storage_dims, (void)storage_number;
  int64_t size = element_size(type);
  aclTensor *tensor = calloc(1, sizeof *tensor);
  tensor->row = size && number == 2 && dims[0] == 1 && strides[1] == 1;
  if (tensor->row) *tensor = (aclTensor){true, (char *)bytes + offset * size, (size_t)(dims[1] * size)};
  return tensor;
}

aclIntArray *aclCreateIntArray(const int64_t *values, uint64_t size) {
  aclIntArray *array = malloc(sizeof *array);
  *array = (aclIntArray){values, size};
  return array;
}

/* Only 0 is asked for, of any type. */
void *aclCreateScalar(void *value, aclDataType type) {
  static const char zero[8];
  if (memcmp(value, zero, (size_t)element_size(type))) {
    account_complain(ACL_ERROR_INVALID_PARAM, "aclCreateScalar: not 0");
    return NULL;
  }
  return malloc(1);
}

int aclDestroyTensor(const aclTensor *tensor) {
  free((void *)tensor);
  return 0;
}

int aclDestroyIntArray(const aclIntArray *array) {
  free((void *)array);
  return 0;
}

int aclDestroyScalar(const void *scalar) {
  free((void *)scalar);
  return 0;
}

int aclnnConstantPadNdGetWorkspaceSize(const aclTensor *input, const aclIntArray *padding, const void *value,
                                       aclTensor *output, uint64_t *workspace, aclOpExecutor **executor) {
  bool at_end = padding->size == 2 && !padding->values[0] && padding->values[1] >= 0;
  if (!value || !at_end || !input->row || !output->row)
    return account_complain(ACL_ERROR_INVALID_PARAM, "aclnnConstantPadNd: only zeros at the end of a row");
  *workspace = 0;
  *executor = malloc(sizeof **executor);
  **executor = (aclOpExecutor){input, output};
  return 0;
}

int aclnnConstantPadNd(void *workspace, uint64_t size, aclOpExecutor *executor, aclrtStream stream) {
  (void)workspace, (void)size, (void)stream;
  const aclTensor *input = executor->input, *output = executor->output;
  memcpy(output->bytes, input->bytes, input->nbytes);
  memset(output->bytes + input->nbytes, 0, output->nbytes - input->nbytes);
  free(executor);
  return 0;
}
