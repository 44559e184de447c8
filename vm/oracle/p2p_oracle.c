// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel as an oracle for peer-to-peer routing.
 *
 * /proc/p2p_oracle lists every PCI function and, for every ordered pair of
 * them, what this kernel decides about peer-to-peer DMA between the two. The
 * answers come from the kernel's own functions, called at the moment of
 * reading, so a second read sees what was written to ACS registers since.
 *
 * The exported pci_p2pdma_distance_many() tells only the distance, and -1 for
 * a refusal. The map type comes from calc_map_type_and_dist(), which is static;
 * its address is a module parameter, read from /proc/kallsyms, and the module
 * refuses to load with an address of anything else. Whether the compiler kept
 * the C signature of that function cannot be seen from here: see README.md for
 * the flags that make sure of it. Copying the function into this file was
 * rejected, for a copy answers what the kernel was when it was copied.
 *
 * One side effect, which the kernel has itself whenever it asks: the answer is
 * stored in the provider's cache if a driver set up peer-to-peer memory there,
 * so a cached decision is refreshed by reading this file.
 *
 * For tests in a virtual machine. Not for machines that anybody needs.
 */

#include <linux/kallsyms.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/utsname.h>

#define ORACLE_FILE	"p2p_oracle"
#define CALC_NAME	"calc_map_type_and_dist"

typedef enum pci_p2pdma_map_type (*calc_function)(struct pci_dev *provider,
						  struct pci_dev *client,
						  int *dist, bool verbose);

static unsigned long calc;
module_param(calc, ulong, 0400);
MODULE_PARM_DESC(calc, "address of " CALC_NAME " as /proc/kallsyms tells it to root");

/* The functions that were there when the file was opened; each is held. */
struct inventory {
	unsigned int count;
	struct pci_dev *functions[] __counted_by(count);
};

static struct inventory *inventory_take(void)
{
	struct inventory *inventory;
	struct pci_dev *pdev = NULL;
	unsigned int count = 0, i = 0;

	/* Nothing comes or goes between the two walks. */
	pci_lock_rescan_remove();
	for_each_pci_dev(pdev)
		count++;

	inventory = kvzalloc(struct_size(inventory, functions, count), GFP_KERNEL);
	if (inventory) {
		inventory->count = count;
		for_each_pci_dev(pdev)
			if (i < count)
				inventory->functions[i++] = pci_dev_get(pdev);
	}
	pci_unlock_rescan_remove();
	return inventory;
}

static void inventory_put(struct inventory *inventory)
{
	unsigned int i;

	for (i = 0; i < inventory->count; i++)
		pci_dev_put(inventory->functions[i]);
	kvfree(inventory);
}

/*
 * Records: the release, the functions, the pairs row by row with the provider
 * as row, and a last line that tells a complete file from a cut one.
 */
static u64 records(const struct inventory *inventory)
{
	u64 count = inventory->count;

	return 1 + count + count * count + 1;
}

static void *record_at(struct seq_file *file, loff_t pos)
{
	const struct inventory *inventory = file->private;

	/* Never NULL, which would be the end. */
	return pos < records(inventory) ? (void *)(unsigned long)(pos + 1) : NULL;
}

static void *oracle_start(struct seq_file *file, loff_t *pos)
{
	/*
	 * A function that is held keeps its memory and its bus, but only while
	 * nothing is removed does it also keep its place.
	 */
	pci_lock_rescan_remove();
	return record_at(file, *pos);
}

static void *oracle_next(struct seq_file *file, void *record, loff_t *pos)
{
	return record_at(file, ++*pos);
}

static void oracle_stop(struct seq_file *file, void *record)
{
	pci_unlock_rescan_remove();
}

/* A function taken out since the file was opened has no answers any more. */
static bool is_there(struct pci_dev *pdev)
{
	return device_is_registered(&pdev->dev);
}

static int show_function(struct seq_file *file, struct pci_dev *pdev)
{
	if (!is_there(pdev))
		return SEQ_SKIP;
	seq_printf(file, "function %s header=%u virtual=%d id=%04x:%04x acs=%#x\n",
		   pci_name(pdev), pdev->hdr_type, pdev->is_virtfn,
		   pdev->vendor, pdev->device, pdev->acs_cap);
	return 0;
}

static int show_pair(struct seq_file *file, struct pci_dev *provider,
		     struct pci_dev *client)
{
	struct device *clients[] = { &client->dev };
	enum pci_p2pdma_map_type type;
	int dist = -1, many;

	if (!is_there(provider) || !is_there(client))
		return SEQ_SKIP;
	many = pci_p2pdma_distance_many(provider, clients, 1, false);
	type = ((calc_function)calc)(provider, client, &dist, false);
	seq_printf(file, "%s %s distance_many=%d dist=%d type=%d\n",
		   pci_name(provider), pci_name(client), many, dist, type);
	return 0;
}

static int oracle_show(struct seq_file *file, void *record)
{
	const struct inventory *inventory = file->private;
	u64 count = inventory->count;
	u64 index = (unsigned long)record - 1;

	if (index == 0) {
		seq_printf(file, "kernel %s\n", init_utsname()->release);
		return 0;
	}
	index--;
	if (index < count)
		return show_function(file, inventory->functions[index]);
	index -= count;
	if (index < count * count)
		return show_pair(file, inventory->functions[index / count],
				 inventory->functions[index % count]);
	seq_printf(file, "end functions=%llu\n", count);
	return 0;
}

static const struct seq_operations oracle_records = {
	.start = oracle_start,
	.next = oracle_next,
	.stop = oracle_stop,
	.show = oracle_show,
};

static int oracle_open(struct inode *inode, struct file *file)
{
	struct inventory *inventory;
	int error;

	error = seq_open(file, &oracle_records);
	if (error)
		return error;
	inventory = inventory_take();
	if (!inventory) {
		seq_release(inode, file);
		return -ENOMEM;
	}
	((struct seq_file *)file->private_data)->private = inventory;
	return 0;
}

static int oracle_release(struct inode *inode, struct file *file)
{
	inventory_put(((struct seq_file *)file->private_data)->private);
	return seq_release(inode, file);
}

static const struct proc_ops oracle_file = {
	.proc_open = oracle_open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = oracle_release,
};

static int __init oracle_init(void)
{
	char symbol[KSYM_SYMBOL_LEN];

	/* A jump anywhere else would be a crash at best. */
	sprint_symbol(symbol, calc);
	if (!strstarts(symbol, CALC_NAME "+0x0/")) {
		pr_err(ORACLE_FILE ": calc=%#lx is %s and not the start of " CALC_NAME "; read it from /proc/kallsyms as root\n",
		       calc, symbol);
		return -EINVAL;
	}
	return proc_create(ORACLE_FILE, 0400, NULL, &oracle_file) ? 0 : -ENOMEM;
}

static void __exit oracle_exit(void)
{
	remove_proc_entry(ORACLE_FILE, NULL);
}

module_init(oracle_init);
module_exit(oracle_exit);
MODULE_DESCRIPTION("What this kernel decides about peer-to-peer DMA, for every pair of PCI functions");
MODULE_LICENSE("GPL");
