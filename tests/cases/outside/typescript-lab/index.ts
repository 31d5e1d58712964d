// A guest on a network, a nested host with a container in it, and a network alone, by nestlab's package.
import * as pulumi from "@pulumi/pulumi";
import * as nestlab from "@pulumi/nestlab";

const config = new pulumi.Config();
const name = config.require("lab-name");

new nestlab.Lab("course", {
    name,
    media: { ipxe: { path: "/usr/lib/ipxe/ipxe.iso" } },
    holds: { networks: ["lan"], guests: ["web"], hypervisors: ["kvm1"] },
});
const lan = new nestlab.BridgedNetwork("lan", { place: "course", subnet: "10.77.0.0/24" });
const web = new nestlab.GuestFromIso("web", {
    place: "course",
    iso: "ipxe",
    network: "lan",
    memory_mib: config.requireNumber("memory"),
    ready: { reset_s: 60 },
});
const host = new nestlab.NestedHypervisorLab("kvm1", {
    place: "course",
    kind: "kvm",
    network: [{ network: "lan" }],
    memory_mib: 2048,
    holds: { networks: ["inner"], containers: ["box"] },
});
new nestlab.BridgedNetwork("inner", { place: "kvm1", subnet: "10.78.0.0/24" });
const box = new nestlab.ContainerFromTemplate("box", { place: "kvm1", template: "busybox", network: "inner" });
const alone = new nestlab.BridgedNetwork("alone", { lab: { host: { kind: "libvirt" } }, mode: "isolated", subnet: "10.79.0.0/24" });
const whole = new nestlab.Lab("whole", { networks: { lan: { subnet: "10.80.0.0/24" } } });

export const subnet: pulumi.Output<string> = lan.subnet;
export const password: pulumi.Output<string> = web.password;
export const addresses = pulumi.all([web.address, host.address, box.address, alone.subnet]);
export const passwords: pulumi.Output<{ [key: string]: string }> = whole.passwords;
