//! Names of special registers.

use crate::program::Special;

/// The special register of this name: one that a thread or block has, or a value that is the same everywhere.
pub(crate) fn special(name: &str) -> Option<Result<Special, u64>> {
    let name = name.strip_prefix('%').or(if name == "WARP_SZ" { Some(name) } else { None })?;
    let (base, axis) = match name.rsplit_once('.') {
        Some((b, "x")) => (b, 0),
        Some((b, "y")) => (b, 1),
        Some((b, "z")) => (b, 2),
        Some(_) => return None,
        None => (name, u8::MAX),
    };
    if axis != u8::MAX {
        return Some(Ok(match base {
            "tid" => Special::Tid(axis),
            "ntid" => Special::NTid(axis),
            "ctaid" => Special::CtaId(axis),
            "nctaid" => Special::NCtaId(axis),
            "clusterid" => Special::ClusterId(axis),
            "nclusterid" => Special::NClusterId(axis),
            "cluster_ctaid" => Special::ClusterCtaId(axis),
            "cluster_nctaid" => Special::ClusterNCtaId(axis),
            _ => return None,
        }));
    }
    Some(Ok(match base {
        "laneid" => Special::LaneId,
        "warpid" => Special::WarpId,
        "nwarpid" => Special::NWarpId,
        "smid" => Special::SmId,
        "nsmid" => Special::NSmId,
        "gridid" => Special::GridId,
        "lanemask_eq" => Special::LaneMaskEq,
        "lanemask_le" => Special::LaneMaskLe,
        "lanemask_lt" => Special::LaneMaskLt,
        "lanemask_ge" => Special::LaneMaskGe,
        "lanemask_gt" => Special::LaneMaskGt,
        "cluster_ctarank" => Special::ClusterCtaRank,
        "cluster_nctarank" => Special::ClusterNCtaRank,
        "dynamic_smem_size" => Special::DynamicSharedSize,
        "total_smem_size" => Special::TotalSharedSize,
        "WARP_SZ" => return Some(Err(32)),
        _ => return None,
    }))
}
