//! Devices as plain descriptions: what decides which kernels are legal.

/// A GPU as far as the choice of kernels needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its name, or that of its family.
    pub name: String,
    /// Compute capability as major · 10 + minor: 80, 86, 90.
    pub capability: u32,
    /// Shared memory that one block may have, bytes.
    pub shared_per_block: usize,
    /// Shared memory of a multiprocessor, bytes.
    pub shared_per_multiprocessor: usize,
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Bytes a second from and to device memory.
    pub bandwidth: f64,
    /// Operations a second of bf16 and f16 tensor products with f32 sums, dense.
    pub tensor_flops: f64,
    /// f32 operations a second outside of tensor cores.
    pub f32_flops: f64,
}

impl Device {
    /// The families that are known: (capability, name, shared memory a block and a multiprocessor in KiB,
    /// multiprocessors, GB/s, dense bf16 TFLOP/s, f32 TFLOP/s), each with the figures of its largest common card as the
    /// vendor's data sheets give them (A100 SXM 80 GB, RTX 3090, L40S, H100 SXM, B200, RTX 5090).
    const FAMILIES: [(u32, &'static str, usize, usize, usize, f64, f64, f64); 6] = [
        (80, "A100 SXM", 163, 164, 108, 2039.0, 312.0, 19.5),
        (86, "RTX 3090", 99, 100, 82, 936.0, 71.0, 35.6),
        (89, "L40S", 99, 100, 142, 864.0, 362.0, 91.6),
        (90, "H100 SXM", 227, 228, 132, 3350.0, 989.0, 66.9),
        (100, "B200", 227, 228, 148, 8000.0, 2250.0, 80.0),
        (120, "RTX 5090", 99, 100, 170, 1792.0, 209.0, 104.8),
    ];

    /// The description of a compute capability; none where it is older than 8.0, which has no bf16.
    ///
    /// A capability between two that are known has the limits of the one below.
    pub fn of(capability: u32) -> Option<Device> {
        let (_, name, block, multiprocessor, sms, bandwidth, tensor, f32) =
            *Device::FAMILIES.iter().rfind(|family| family.0 <= capability)?;
        Some(Device {
            name: name.to_string(),
            capability,
            shared_per_block: block * 1024,
            shared_per_multiprocessor: multiprocessor * 1024,
            multiprocessors: sms,
            bandwidth: bandwidth * 1e9,
            tensor_flops: tensor * 1e12,
            f32_flops: f32 * 1e12,
        })
    }

    /// The capabilities that [`Device::of`] has figures for.
    pub fn capabilities() -> impl Iterator<Item = u32> {
        Device::FAMILIES.iter().map(|family| family.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_family() {
        let shared = |capability| Device::of(capability).map(|device| device.shared_per_block / 1024);
        assert_eq!([80, 86, 87, 89, 90, 103].map(shared), [163, 99, 99, 99, 227, 227].map(Some));
        assert_eq!(shared(75), None);
    }
}
