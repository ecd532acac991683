/* Functions that libtorch_npu.so needs to be loaded and that have no other stand-in.

   What torch_npu looks up by name (TORCH_NPU_LOAD_FUNC, torch_npu/csrc/core/npu/interface/AclInterface.cpp) is not
   here: torch_npu names a function that does not exist in its error, or does what it does with an older CANN. */
#include "account.h"
#include "acl/error_codes/rt_error_codes.h"

/* Called on the way, without an effect that anything depends on. */
#define ANSWER_ZERO(name) \
  long name(void);        \
  long name(void) { return 0; }

#define REFUSE(name)                                                                  \
  long name(void);                                                                    \
  long name(void) {                                                                   \
    return account_complain(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "%s has no stand-in", __func__); \
  }

/* The same for a function that returns a pointer. */
#define REFUSE_POINTER(name)                                                          \
  void *name(void);                                                                   \
  void *name(void) {                                                                  \
    account_complain(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "%s has no stand-in", __func__); \
    return 0;                                                                         \
  }

/* At start-up and at exit. */
ANSWER_ZERO(MsprofRegisterCallback)
ANSWER_ZERO(aclAppLog)
ANSWER_ZERO(aclFinalize)
ANSWER_ZERO(aclrtSetDeviceSatMode)
ANSWER_ZERO(aclrtSetOpExecuteTimeOut)
/* ProcessGroupHCCL: streams are synchronous, so that nothing waits. */
ANSWER_ZERO(aclrtSetOpWaitTimeout)

REFUSE(MsprofGetHashId)
REFUSE(MsprofReportAdditionalInfo)
REFUSE(MsprofReportApi)
REFUSE(MsprofReportCompactInfo)
REFUSE(MsprofSysCycleTime)
REFUSE_POINTER(aclCreateDataBuffer)
REFUSE_POINTER(aclCreateTensorDesc)
REFUSE(aclDestroyDataBuffer)
REFUSE(aclDestroyTensorDesc)
REFUSE(aclGetTensorDescDimV2)
REFUSE(aclGetTensorDescFormat)
REFUSE(aclGetTensorDescNumDims)
REFUSE(aclGetTensorDescType)
REFUSE(aclSetTensorDescName)
REFUSE(aclSetTensorFormat)
REFUSE(aclSetTensorPlaceMent)
REFUSE(aclSetTensorShape)
REFUSE(aclmdlFinalizeDump)
REFUSE(aclmdlInitDump)
REFUSE(aclmdlSetDump)
REFUSE(aclopCompileAndExecute)
REFUSE_POINTER(aclopCreateAttr)
REFUSE(aclopDestroyAttr)
REFUSE(aclopSetAttrBool)
REFUSE(aclopSetAttrDataType)
REFUSE(aclopSetAttrFloat)
REFUSE(aclopSetAttrInt)
REFUSE(aclopSetAttrListBool)
REFUSE(aclopSetAttrListFloat)
REFUSE(aclopSetAttrListInt)
REFUSE(aclopSetAttrListListInt)
REFUSE(aclopSetAttrString)
REFUSE(aclrtBinaryGetFunction)
REFUSE(aclrtBinaryLoadFromData)
REFUSE(aclrtDeviceEnablePeerAccess)
REFUSE(aclrtGetFunctionAddr)
REFUSE(aclrtMemExportToShareableHandle)
REFUSE(aclrtMemImportFromShareableHandle)
REFUSE(aclrtMemSetPidToShareableHandle)
REFUSE(aclrtProcessReport)
REFUSE(rtDevBinaryRegister)
REFUSE(rtFunctionRegister)
REFUSE(rtGetC2cCtrlAddr)
REFUSE(rtKernelLaunch)
